"""The share of the expected loss decrease that compression keeps.

To first order, a step along the sum r_t that was sent lowers the loss of the next batch by the learning
rate times <r_t, g_(t+1)>, and one along the exact sum s_t by the learning rate times <s_t, g_(t+1)>. The
ratio of the two, over some calls, is the share that is kept. What compression omits or sends late counts as
far as the next gradient confirms it. Noise, which is most of a stochastic gradient, does not count. The norm
of a residual cannot separate the two: low rank leaves many gradients of noise behind and trains well, and
the largest values may not.

Some thousand elements, spread over the arrays, are enough; so it costs little to sum them exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ._method import Floats, Steps, agreed

__all__ = ["LossDecrease"]

ELEMENTS = 1 << 16  # of a sample, about
DENSEST = 17  # of small buckets one element of so many, for it is sent exactly
PERIOD = 16  # calls: the first ones are all looked at, of later ones one in a period
DEVIATIONS = 2.5  # standard errors of the mean, for a verdict


@dataclass(frozen=True)
class Sample:
    """Every `stride`-th element of each array."""

    offset: int
    stride: int

    def of(self, arrays: Sequence[Any]) -> Floats:
        picked = [each.reshape(-1)[self.offset :: self.stride] for each in arrays]
        return np.concatenate(picked)


@dataclass(frozen=True)
class Seen:
    """What a call has sent, where a sample of it is known exactly."""

    sample: Sample
    exact: Floats
    sent: Floats


class LossDecrease:
    """Observes the calls of a bucket, one after another: each begins with `before` and ends with `after`."""

    def __init__(self) -> None:
        self._calls = 0
        self._exact: tuple[Sample, Floats] | None = None  # of the call that is under way
        self._last: Seen | None = None
        # <r_t, g_(t+1)> and <s_t, g_(t+1)>, as parts of <s_t, s_t>; the latest
        self._pairs: deque[tuple[float, float]] = deque(maxlen=2 * PERIOD)

    @property
    def kept(self) -> float | None:
        """The share of the expected loss decrease that was kept so far; None while too little is known."""
        if not self._says_something:
            return None
        sent, exact = np.sum(self._pairs, axis=0)
        return float(sent / exact) if exact > 0 else None

    def is_below(self, part: float) -> bool:
        """Whether the loss is expected to decrease, and less than this part of that is kept, both beyond
        doubt. Where a constant learning rate has led as far as it can, gradients point to and fro."""
        if not self._says_something:
            return False
        sent, exact = np.array(self._pairs).T
        return _is_positive(exact) and _is_positive(part * exact - sent)

    @property
    def _says_something(self) -> bool:
        return len(self._pairs) >= PERIOD // 2

    def before(self, bucket: _core.Bucket) -> Steps:
        self._exact = None  # of a call that has failed
        if self._last is not None:
            yield from self._compare(bucket, self._last)
            self._last = None
        if self._calls < PERIOD or self._calls % PERIOD == 0:
            elements = sum(each.size for each in bucket.inputs)
            # Odd: not the same columns of each row.
            stride = max(DENSEST, elements // ELEMENTS | 1)
            sample = Sample(self._calls % stride, stride)
            own = sample.of(bucket.inputs)
            exact = np.empty_like(own)
            if own.size:
                op = _core.Op.Average if bucket.averages else _core.Op.Sum
                yield _core.Allreduce(
                    bucket, [own], [exact], _core.DType.float32, op, *bucket.factors
                )
                self._exact = sample, exact
        self._calls += 1

    def after(self, bucket: _core.Bucket) -> None:
        if self._exact is not None:
            sample, exact = self._exact
            self._last = Seen(sample, exact, sample.of(bucket.outputs))
            self._exact = None

    def _compare(self, bucket: _core.Bucket, last: Seen) -> Steps:
        following = last.sample.of(bucket.inputs).astype(np.float64)
        with np.errstate(all="ignore"):
            dots = [following @ last.sent, following @ last.exact]
            found = yield from agreed(bucket, dots, _core.Op.Sum)
            sent, exact = found / _core.sum_of_squares(last.exact)
        # Steps with NaN or infinity say nothing, nor do those in which nothing is left to learn.
        if np.isfinite([sent, exact]).all():
            self._pairs.append((float(sent), float(exact)))


def _is_positive(values: npt.NDArray[np.float64]) -> bool:
    """Whether their mean is, beyond doubt."""
    doubt = np.std(values, ddof=1) / np.sqrt(len(values))
    return bool(np.mean(values) > DEVIATIONS * doubt)
