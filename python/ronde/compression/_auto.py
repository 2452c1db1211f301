"""The choice of compression by prediction and measurement."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from .. import _core
from ..process_set import ProcessSet, global_process_set
from . import _residuals
from ._group import Group, Method, Parts, squares
from .codecs import Predictable, bf16, int4, int8, linear
from .prediction import Prediction, codec_seconds, predict

__all__ = ["Auto"]

TRIALS = 3  # calls of each candidate, of which the first warms up
WORTH = 0.95  # of the time of exact reduction: what is not predicted to take less is not tried
HOPELESS = 1.5  # times the best so far: what is predicted or seen to take longer is given up
TIE = 1.1  # times the best step: among candidates that take no longer the most exact is chosen
CHECK_EVERY = 16  # calls, after which the ranks compare what they have measured since
COMPARED = "what auto has measured"
CHANGED = 1.5  # times slower than when it was chosen: all is tried again


@dataclass
class Bucket:
    """What is known of arrays that travel together."""

    predictions: list[Prediction]  # of each candidate
    waiting: list[int]  # candidates that are still to be tried, the next one first
    refused: set[int] = field(default_factory=set)  # those that leave out too much
    trials: dict[int, list[float]] = field(default_factory=dict)  # seconds
    chosen: int = 0
    expected: float = 0.0  # seconds of what was chosen, at that time
    recent: list[float] = field(default_factory=list)  # seconds since the ranks last compared them
    measured: float = 0.0  # the median of the last comparison
    rest: list[float] = field(default_factory=list)  # seconds between the calls of trials
    ended: float | None = None  # when the last call did
    holds: bool = True  # maybe something that has been left out, before it was first used too

    @property
    def current(self) -> int:
        return self.waiting[0] if self.waiting else self.chosen

    @property
    def compares_next(self) -> bool:
        """Whether the ranks compare what they have measured after the next call."""
        return bool(self.waiting) or len(self.recent) + 1 == CHECK_EVERY

    def usable(self) -> dict[int, float]:
        """The seconds of what has been tried and not refused."""
        return {i: _typical(each) for i, each in self.trials.items() if i not in self.refused}


class Auto(Method):
    """Compression where it is measured to pay, and only there.

    For each bucket, the arrays that travel together, it predicts what exact reduction and each candidate
    would take, from what the link costs and how fast the codecs are. Those predicted to be worth it are
    tried, a few calls each, the most promising first; what is predicted or seen to take 1.5 times as long
    as the best so far is tried no further. The fastest is used from then on, or a more exact one with which
    a step, with all that comes between two calls, takes at most 10% longer; so compression that loses
    against exact float32 or bfloat16 is never used for longer than its trials. The ranks compare their
    times again and again, and all is tried anew when it has become much slower. Whatever is changed, what
    has been left out is kept and sent later.

    `candidates`: compressors to choose from besides exact float32 and bfloat16, from the most to the least
    exact; int8, int4 and linear(3, block=512) unless given. They get error feedback if they need it.
    `max_residual`: a candidate whose residual comes to more than this part of the norm of the gradients
    is not used any more, as late gradients cost steps that no link pays back.
    """

    def __init__(
        self, candidates: Sequence[Predictable] | None = None, *, max_residual: float = 1.0
    ) -> None:
        default = int8(), int4(), linear(3, block=512)
        chosen = default if candidates is None else tuple(candidates)
        if not max_residual > 0:
            raise ValueError(f"max_residual is positive, not {max_residual}")
        self.max_residual = float(max_residual)
        for each in chosen:
            if not isinstance(each, Predictable):
                raise TypeError(f"a candidate is a ronde.compression.Compressor, not {each!r}")
        further = [each for each in dict.fromkeys(chosen) if each != bf16()]
        self.candidates: tuple[Predictable | None, ...] = (None, bf16(), *further)
        self._residuals = _residuals.Residuals()
        self._buckets: dict[tuple[int, Parts], Bucket] = {}  # by communicator and arrays
        self._step: dict[Parts, int] = {}

    @property
    def feeds_back(self) -> bool:  # type: ignore[override]
        """Whether something may be left behind, or has been; exact reduction leaves nothing."""
        return not self._buckets or any(
            bucket.holds or self._gets_feedback(bucket.current) for bucket in self._buckets.values()
        )

    def norms(self) -> dict[str, float]:
        """The Euclidean norm of what has been left out of each parameter, on this rank."""
        return self._residuals.norms()

    def rescale(self, factor: float) -> None:
        """Multiplies all residuals: when gradients are scaled by another factor from now on."""
        self._residuals.rescale(factor)

    def choices(self) -> dict[tuple[str, ...], str]:
        """What is chosen for each bucket, by the names of its arrays."""
        return {
            tuple(name for name, _ in parts): self._name(bucket.current)
            for (_, parts), bucket in self._buckets.items()
        }

    def report(self, file: TextIO | None = None) -> None:
        """Prints, for each bucket, what was predicted and measured for every candidate: milliseconds, and
        bytes that a rank sends in a call."""
        print("\n".join(self._lines()), file=file or sys.stdout)

    def state_dict(self) -> dict[str, Any]:
        """What has been left out on this rank. Choices are not kept: they belong to the job and its links."""
        return {
            "steps": dict(self._step),
            "codecs": {repr(each): each.state_dict() for each in self.candidates if each},
            **self._residuals.state_dict(),
        }

    def load_state_dict(
        self,
        state: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        process_set: ProcessSet = global_process_set,
    ) -> None:
        """As of `ErrorFeedback`."""
        first = _residuals.load(
            state, process_set, self._residuals.load, self._residuals.load_share
        )
        self._step = dict(first["steps"])
        for each in filter(None, self.candidates):
            each.load_state_dict(first["codecs"].get(repr(each), each.state_dict()))
        self._buckets.clear()

    def __getstate__(self) -> dict[str, Any]:
        # Choices belong to the communicators of this process.
        return {**vars(self), "_buckets": {}}

    def _reduce(self, group: Group) -> None:
        for bucket in group.buckets():
            key = id(bucket.communicator), bucket.parts
            known = self._buckets.get(key)
            if known is None:
                known = self._buckets[key] = self._open(bucket)
            index = known.current
            given = None
            if self._gets_feedback(index) and known.compares_next:  # while it is still there
                given = sum(map(squares, bucket.inputs)) * bucket.factors[0] ** 2
            start = time.perf_counter()
            rest = 0.0 if known.ended is None else start - known.ended
            self._reduce_by(index, bucket, known)
            known.ended = time.perf_counter()
            seconds = known.ended - start
            if known.predictions[0].wire_bytes:  # else there is nothing to choose
                again = self._learn(bucket, known, index, seconds, rest, given)
                if again:
                    self._buckets[key] = again

    def _reduce_by(self, index: int, bucket: Group, known: Bucket) -> None:
        codec = self.candidates[index]
        parts = bucket.parts
        vector, added = None, None
        if codec is not None and self._gets_feedback(index):
            vector, added = self._residuals.of(bucket, per_rank=codec.per_rank)
        elif known.holds:
            added = self._residuals.taken(bucket)
        known.holds = vector is not None
        if added:
            bucket = bucket.scaled(added)
        if codec is None:
            bucket.allreduce()
            return
        self._step[parts] = self._step.get(parts, -1) + 1
        codec._reduce_bucket(bucket, vector, self._step[parts])

    def _gets_feedback(self, index: int) -> bool:
        codec = self.candidates[index]
        return index > 1 and codec is not None and not codec.unbiased

    def _open(self, bucket: Group) -> Bucket:
        """Predicts, and decides what to try. All ranks come to the same, from values that they share."""
        _residuals.require_names(list(bucket.names))
        communicator = bucket.communicator
        ranks = communicator.size // communicator.places
        if ranks == 1:
            nothing = Prediction(0.0, 0.0, 0.0, 0.0)
            return Bucket([nothing] * len(self.candidates), [])
        communicator.know_link()
        link = communicator.link
        costs = {name: getattr(link, name) for name in ("alpha", "overhead", "beta", "gamma")}
        speeds = np.array([codec_seconds(each) for each in self.candidates if each], np.float64)
        speeds = bucket.agreed(speeds.ravel(), _core.ReduceOp.max, COMPARED).reshape(-1, 2)
        predictions = [
            predict(
                each,
                [x.shape for x in bucket.inputs],
                ranks,
                costs,
                places=communicator.places,
                speeds=None if each is None else tuple(speeds[i - 1]),
            )
            for i, each in enumerate(self.candidates)
        ]
        return Bucket(predictions, self._worth_trying([each.seconds for each in predictions]))

    def _worth_trying(self, predicted: Sequence[float]) -> list[int]:
        """Candidates in the order in which to try them, each as often as it is to be tried."""
        exact = min(predicted[:2])
        tried = [i for i, each in enumerate(predicted) if i < 2 or each < WORTH * exact]
        tried.sort(key=lambda i: predicted[i])
        return [i for i in tried for _ in range(TRIALS)]

    def _learn(
        self,
        bucket: Group,
        known: Bucket,
        index: int,
        seconds: float,
        rest: float,
        given: float | None,
    ) -> Bucket | None:
        """What a call tells. `rest`: seconds since the one before; `given`: the squares of what it was given,
        if feedback is to be judged. Returns what to begin anew with, if it must."""
        if known.waiting:
            # The rank that came last has waited least.
            times = bucket.agreed([seconds, rest], _core.ReduceOp.min, COMPARED)
            known.rest.append(float(times[1]))
            self._try(bucket, known, index, float(times[0]), given)
            return None
        known.recent.append(seconds)
        if len(known.recent) < CHECK_EVERY:
            return None
        middle = [statistics.median(known.recent)]
        known.measured = float(bucket.agreed(middle, _core.ReduceOp.min, COMPARED)[0])
        known.recent.clear()
        if self._leaves_out_too_much(bucket, given):
            known.refused.add(index)
            self._choose(known)
        elif known.measured > CHANGED * known.expected:
            again = self._open(bucket)
            again.refused, again.holds = known.refused, known.holds
            again.waiting = [each for each in again.waiting if each not in again.refused]
            return again
        return None

    def _try(
        self, bucket: Group, known: Bucket, index: int, seconds: float, given: float | None
    ) -> None:
        known.waiting.pop(0)
        known.trials.setdefault(index, []).append(seconds)
        if self._leaves_out_too_much(bucket, given):
            known.refused.add(index)
        usable = known.usable()
        limit = HOPELESS * min(usable.values(), default=np.inf)
        known.waiting = [
            each
            for each in known.waiting
            if each not in known.refused
            and (seconds if each == index else known.predictions[each].seconds) <= limit
        ]
        if not known.waiting:
            self._choose(known)

    def _choose(self, known: Bucket) -> None:
        """Or tries exact reduction, where nothing else is left."""
        times = known.usable()
        if not times:
            known.waiting = [0, 1] * TRIALS
            return
        rest = statistics.median(known.rest)
        limit = TIE * (rest + min(times.values()))
        known.chosen = min(index for index, each in times.items() if rest + each <= limit)
        known.expected = known.measured = times[known.chosen]

    def _leaves_out_too_much(self, bucket: Group, given: float | None) -> bool:
        if given is None:
            return False
        sums = [self._residuals.squares(bucket), given]
        left, given = bucket.agreed(sums, _core.ReduceOp.sum, COMPARED)
        return bool(left > self.max_residual**2 * given)

    def _name(self, index: int) -> str:
        codec = self.candidates[index]
        return "exact" if codec is None else repr(codec).removeprefix("ronde.compression.")

    def _lines(self) -> list[str]:
        if not self._buckets:
            return ["auto: nothing has been reduced yet"]
        lines = [
            f"{'bucket':<36}{'candidate':<20}{'predicted ms':>13}{'measured ms':>17}"
            f"{'MB sent':>10}{'residual':>11}"
        ]
        norms = self._residuals.norms()
        for (_, parts), bucket in self._buckets.items():
            first, *others = [name for name, _ in parts]
            label = f"{first[:22]}{f' and {len(others)} more' if others else ''}"
            left = float(np.sqrt(sum(norms.get(name, 0.0) ** 2 for name, _ in parts)))
            for index, predicted in enumerate(bucket.predictions):
                current = index == bucket.current
                seen = bucket.trials.get(index)
                measured = bucket.measured if current and bucket.measured else None
                if measured is None and seen:
                    measured = _typical(seen)
                took = "-" if measured is None else f"{measured * 1e3:.2f}"
                if index in bucket.refused:
                    took = "leaves too much"
                lines.append(
                    f"{label:<36}{'> ' if current else '  '}{self._name(index):<18}"
                    f"{predicted.seconds * 1e3:>13.2f}{took:>17}{predicted.wire_bytes / 1e6:>10.3f}"
                    + (f"{left:>11.3g}" if current else "")
                )
                label = ""
        return lines

    def __repr__(self) -> str:
        further = ", ".join(repr(each) for each in self.candidates[2:])
        limit = f", max_residual={self.max_residual!r}" if self.max_residual != 1.0 else ""
        return f"ronde.compression.auto([{further}]{limit})"


def _typical(seconds: Sequence[float]) -> float:
    """Of some trials; the first one warms up."""
    return statistics.median(seconds[1:] or seconds)
