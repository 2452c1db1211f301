"""The choice of compression by prediction and measurement."""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO
from weakref import WeakKeyDictionary

import numpy as np

from .. import _core
from .._text import printable
from ..process_set import ProcessSet, global_process_set
from . import _residuals
from ._loss_decrease import PERIOD, LossDecrease
from ._method import Floats, Parts, PythonMethod, Steps, agreed
from ._names import resolved
from ._power_sgd import PowerSGD
from .codecs import Predictable, bf16, int4, int8, number
from .prediction import Prediction, codec_seconds, predict

__all__ = ["Auto"]

TURNS = 3  # of each candidate: two calls, of which the first pays for the change
MUCH = 1.5  # times as long: not worth a trial, or no longer what was chosen
TIE = 0.05  # of a step, that all buckets together may take longer for the most exact choices
BF16 = 1  # its position among the candidates, after exact float32


@dataclass
class Bucket:
    """What is known of arrays that travel together."""

    predictions: list[Prediction]  # of each candidate
    waiting: list[int]  # candidates that are still to be tried, the next one first
    refused: set[int] = field(default_factory=set)  # they keep too little of the loss decrease
    trials: dict[int, list[float]] = field(default_factory=dict)  # seconds of calls
    took: dict[int, list[float]] = field(default_factory=dict)  # seconds since the call before, too
    chosen: int = 0
    decrease: LossDecrease = field(default_factory=LossDecrease)  # of what was chosen
    expected: float = 0.0  # seconds of what was chosen, at that time
    recent: list[float] = field(default_factory=list)  # seconds since the ranks last compared them
    measured: float = 0.0  # the median of the last comparison
    rest: list[float] = field(default_factory=list)  # seconds of a step that others took, in trials
    ended: float | None = None  # when the last call did
    share: float = 1.0  # of all elements that this communicator has reduced, at the last trial
    holds: bool = True  # maybe something that has been left out, before it was first used too

    @property
    def current(self) -> int:
        return self.waiting[0] if self.waiting else self.chosen

    def usable(self, times: Mapping[int, list[float]]) -> dict[int, float]:
        """The least of each that is not refused: what made others longer came from elsewhere."""
        return {i: min(_settled(each)) for i, each in times.items() if i not in self.refused}

    def try_next(self, candidates: Sequence[int]) -> None:
        """These, in this order, unless they have been refused or are hopeless."""
        self.waiting = [
            each for each in candidates if each not in self.refused and not self._is_hopeless(each)
        ]

    def _is_hopeless(self, index: int) -> bool:
        """By its prediction before the first turn, and by its trials before the last."""
        tried = len(self.trials.get(index, []))
        if tried == 0:
            best = min(self.usable(self.trials).values(), default=np.inf)
            return self.predictions[index].seconds > MUCH * best
        took = self.usable(self.took)
        return tried == 2 * (TURNS - 1) and took[index] > MUCH * min(took.values())


class Times(NamedTuple):
    """Of a call, in seconds."""

    call: float
    took: float  # since the call before, of whatever bucket: computing gradients is in it, for the first
    rest: float  # of a step: what other buckets took


class Auto(PythonMethod):
    """Compression where measurements show that it pays, and only there. Made by
    `ronde.compression.auto`.

    For each bucket, the arrays that travel together:

    1. It predicts what exact reduction and each candidate would take, from the cost of the link and
       the speed of the codecs.
    2. It tries those predicted to be faster than exact reduction in turns, a few calls each, the most
       promising first, but for what is predicted, or found, to take 1.5 times as long as the best so far.
    3. It uses the fastest from then on, or a more exact one with which a step, including all that
       comes between two calls, takes at most 5% longer in all. So compression that is slower than
       exact float32 or bfloat16 is never used for longer than its trials.
    4. The ranks compare their times again and again. When a call takes 1.5 times as long as when it was
       chosen, all is tried again.
    5. They also check how much of the expected loss decrease is kept by what is sent, on a sample
       of the elements that is summed exactly (`_loss_decrease.py`). A candidate that keeps too little is
       given up, and the next best taken.

    Whatever changes, the residual is kept and sent later.

    Args:
        candidates: compressors, or their names, to choose from besides exact float32 and bfloat16,
            from the most to the least exact; `int8()`, `int4()` and `powersgd(32)` unless given.
            They get error feedback if they need it.
        min_loss_decrease: the share of the expected loss decrease that must be kept, from 0 to 1; with 0
            all are good enough.

    Raises:
        ValueError: `min_loss_decrease` is not from 0 to 1.
        TypeError: a candidate is no compressor whose cost can be predicted.
    """

    def __init__(
        self, candidates: Sequence[Predictable] | None = None, *, min_loss_decrease: float = 0.9
    ) -> None:
        default = int8(), int4(), PowerSGD(32)
        chosen = default if candidates is None else _checked(candidates)
        self.min_loss_decrease = number("min_loss_decrease", min_loss_decrease)
        if not 0 <= self.min_loss_decrease <= 1:
            raise ValueError(f"min_loss_decrease must be from 0 to 1, not {min_loss_decrease}")
        further = [each for each in dict.fromkeys(chosen) if each != bf16()]
        self.candidates: tuple[Predictable | None, ...] = (None, bf16(), *further)
        self._residuals = _residuals.Residuals()
        super().__init__(self._residuals.core)
        # Of each communicator, by the arrays. (Its address is no key: another may get it, on some ranks.)
        self._buckets: WeakKeyDictionary[_core.Communicator, dict[Parts, Bucket]]
        self._buckets = WeakKeyDictionary()
        self._step: dict[Parts, int] = {}
        self._ended: float | None = None  # when the last call of any bucket did

    def norms(self) -> dict[str, float]:
        """Return the Euclidean norm of the residual of each parameter, on this rank."""
        return self._residuals.norms()

    def rescale(self, factor: float) -> None:
        """Multiply all residuals by `factor`, when gradients are scaled by another factor from now on."""
        self._residuals.rescale(factor)

    def choices(self) -> dict[tuple[str, ...], str]:
        """Return what is chosen for each bucket, by the names of its arrays."""
        return {
            tuple(name for name, _ in parts): self._name(bucket.current)
            for parts, bucket in self._known()
        }

    def report(self, file: TextIO | None = None) -> None:
        """Print, for each bucket, what was predicted and measured for every candidate.

        Times are in milliseconds, and bytes are those that a rank sends in a call.

        Args:
            file: where to print; `sys.stdout` unless given.
        """
        print("\n".join(self._lines()), file=file or sys.stdout)

    def state_dict(self) -> dict[str, Any]:
        """Return the residuals of this rank. Choices are not kept, because they belong to the job and
        its links.
        """
        return {
            "steps": dict(self._step),
            "codecs": {repr(each): each.state_dict() for each in self.candidates if each},
            **self._residuals.state_dict(),
        }

    def load_state_dict(
        self,
        state: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        process_set: ProcessSet | None = global_process_set,
    ) -> None:
        """Load what `state_dict` returned, as `ErrorFeedback.load_state_dict` does."""
        states = _residuals.states_of(state, "steps", "codecs")
        first = _residuals.load(
            state if isinstance(state, Mapping) else states,
            process_set,
            self._residuals.load,
            self._residuals.load_share,
        )
        self._step = dict(first["steps"])
        for each in filter(None, self.candidates):
            each.load_state_dict(first["codecs"].get(repr(each), each.state_dict()))
        self._buckets.clear()

    def __getstate__(self) -> dict[str, Any]:
        # Choices belong to the communicators of this process, and times to its clock.
        state = {**vars(self), "_buckets": None, "_ended": None}
        del state["_native"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__(state["_residuals"].core)
        vars(self).update(state, _buckets=WeakKeyDictionary())

    def __copy__(self) -> Auto:
        return copy.deepcopy(self)  # with residuals of its own

    def _feeds_back(self, communicator: _core.Communicator, buckets: list[Parts]) -> bool:
        """Whether something may be left behind, or has been; exact reduction leaves nothing."""
        known = [self._buckets.get(communicator, {}).get(parts) for parts in buckets]
        return any(
            each is None or each.holds or self._gets_feedback(each.current) for each in known
        )

    def _position(self, communicator: _core.Communicator, buckets: list[Parts]) -> str:
        text = ""
        for parts in buckets:
            known = self._buckets.get(communicator, {}).get(parts)
            at = known and f"{known.current}/{len(known.waiting)}/{len(known.recent)}"
            text += f", at {at or 'its beginning'} after {self._step.get(parts, -1) + 1} calls"
        return text

    def _reduce(self, bucket: _core.Bucket, residual: Floats | None, step: int) -> Steps:
        buckets = self._buckets.setdefault(bucket.communicator, {})
        parts = bucket.parts
        if parts not in buckets:
            buckets[parts] = yield from self._open(bucket)
        known = buckets[parts]
        index = known.current
        looks = index > BF16 and not known.waiting and self.min_loss_decrease > 0
        if looks:
            yield from known.decrease.before(bucket)
        start = time.perf_counter()
        yield self._reduction(index, bucket, known)
        end = time.perf_counter()
        took = end - (start if self._ended is None else self._ended)
        rest = 0.0 if known.ended is None else end - known.ended - took
        self._ended = known.ended = end
        if looks:
            known.decrease.after(bucket)
        if known.predictions[0].wire_bytes:  # else there is nothing to choose
            times = Times(end - start, took, rest)
            buckets[parts] = yield from self._learn(bucket, known, times)
        return None

    def _reduction(self, index: int, bucket: _core.Bucket, known: Bucket) -> _core.Step:
        codec, parts = self.candidates[index], bucket.parts
        vector, added = None, None
        if codec is not None and self._gets_feedback(index):
            vector, added = bucket.residual(self._residuals.core, codec._native.per_rank)
        elif known.holds:
            added = bucket.taken(self._residuals.core)
        known.holds = vector is not None
        if added:
            bucket = bucket.scaled(added)
        if codec is None:
            return _core.Reduce(bucket)
        self._step[parts] = self._step.get(parts, -1) + 1
        return _core.Reduce(bucket, codec._native, vector, self._step[parts])

    def _gets_feedback(self, index: int) -> bool:
        codec = self.candidates[index]
        return index > BF16 and codec is not None and not codec.unbiased

    def _open(self, bucket: _core.Bucket) -> Generator[_core.Step, None, Bucket]:
        """Predicts, and decides what to try. All ranks come to the same, from values that they share."""
        communicator = bucket.communicator
        ranks = communicator.size // communicator.local_size
        if ranks == 1:
            nothing = Prediction(0.0, 0.0, 0.0, 0.0)
            return Bucket([nothing] * len(self.candidates), [])
        known = _core.KnowLink()
        yield known
        costs = {name: getattr(known.link, name) for name in ("alpha", "overhead", "beta", "gamma")}
        speeds = np.array([codec_seconds(each) for each in self.candidates if each], np.float64)
        speeds = (yield from agreed(bucket, speeds.ravel(), _core.Op.Max)).reshape(-1, 2)
        predictions = [
            predict(
                each,
                [x.shape for x in bucket.inputs],
                ranks,
                costs,
                local_size=communicator.local_size,
                speeds=None if each is None else tuple(speeds[i - 1]),
            )
            for i, each in enumerate(self.candidates)
        ]
        return Bucket(predictions, self._worth_trying([each.seconds for each in predictions]))

    def _worth_trying(self, predicted: Sequence[float]) -> list[int]:
        """Candidates in the order in which to try them, each as often as it is to be tried."""
        exact = min(predicted[: BF16 + 1])
        tried = [i for i, each in enumerate(predicted) if i <= BF16 or each < exact]
        tried.sort(key=lambda i: predicted[i])
        # In turns, so that a busy time slows all alike. Whoever is next takes over what another has left
        # out, and only its second call shows what it takes by itself.
        return [i for i in tried for _ in range(2)] * TURNS

    def _learn(
        self, bucket: _core.Bucket, known: Bucket, times: Times
    ) -> Generator[_core.Step, None, Bucket]:
        """Learns from a call that took so long. Returns what is known from now on."""
        index = known.current
        if known.waiting:
            # The late rank has waited least. But it may have found the cores idle, as the others
            # had finished their work: what a choice costs is seen from call to call.
            call = yield from agreed(bucket, times.call, _core.Op.Min)
            # Which buckets there are may differ too, for a while, where calls are asynchronous.
            elements = sum(map(_elements, list(self._buckets[bucket.communicator])))
            mine = [times.took, times.rest, elements]
            took, rest, elements = yield from agreed(bucket, mine, _core.Op.Max)
            known.share = _elements(bucket.parts) / max(1.0, float(elements))
            known.trials.setdefault(index, []).append(float(call))
            known.took.setdefault(index, []).append(float(took))
            known.rest.append(float(rest))
            known.try_next(known.waiting[1:])
            if not known.waiting:
                self._choose(known)
            return known
        if known.decrease.is_below(self.min_loss_decrease):
            self._refuse(index, known)
            return known
        known.recent.append(times.call)
        if len(known.recent) < PERIOD:
            return known
        middle = [statistics.median(known.recent)]
        least = yield from agreed(bucket, middle, _core.Op.Min)
        known.measured = float(least[0])
        known.recent.clear()
        if known.measured > MUCH * known.expected:
            again = yield from self._open(bucket)
            again.refused, again.holds = known.refused, known.holds
            again.try_next(again.waiting)
            return again
        return known

    def _refuse(self, index: int, known: Bucket) -> None:
        """What would have been tried had it not been for this one is tried now."""
        known.refused.add(index)
        worth = self._worth_trying([each.seconds for each in known.predictions])
        known.try_next([each for each in worth if each not in known.trials])
        if not known.waiting:
            self._choose(known)

    def _choose(self, known: Bucket) -> None:
        took = known.usable(known.took)  # never empty: exact reduction is not refused
        rest = statistics.median(known.rest)
        least = min(took.values())
        limit = least + TIE * (rest + least) * known.share
        known.chosen = min(index for index, each in took.items() if each <= limit)
        known.expected = known.measured = _typical(known.trials[known.chosen])
        known.decrease = LossDecrease()
        known.recent.clear()

    def _known(self) -> Iterator[tuple[Parts, Bucket]]:
        for buckets in list(self._buckets.values()):  # calls under way may add some
            yield from list(buckets.items())

    def _name(self, index: int) -> str:
        codec = self.candidates[index]
        return "exact" if codec is None else repr(codec).removeprefix("ronde.compression.")

    def _lines(self) -> list[str]:
        if not self._buckets:
            return ["auto: nothing has been reduced yet"]
        width = max(map(len, map(self._name, range(len(self.candidates)))))
        lines = [
            f"{'bucket':<36}  {'candidate':<{width}}{'predicted ms':>14}{'measured ms':>13}"
            f"{'MB sent':>10}{'residual':>11}{'decrease':>10}"
        ]
        norms = self._residuals.norms()
        for parts, bucket in self._known():
            more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
            label = f"{printable(parts[0][0])[: 36 - len(more)]}{more}"
            left = float(np.sqrt(sum(norms.get(name, 0.0) ** 2 for name, _ in parts)))
            kept = "-" if bucket.decrease.kept is None else f"{bucket.decrease.kept:.3f}"
            for index, predicted in enumerate(bucket.predictions):
                current = index == bucket.current
                seen = bucket.trials.get(index)
                measured = bucket.measured if current and bucket.measured else None
                if measured is None and seen:
                    measured = _typical(seen)
                took = "-" if measured is None else f"{measured * 1e3:.2f}"
                if index in bucket.refused:
                    took = "too lossy"
                lines.append(
                    f"{label:<36}{'> ' if current else '  '}{self._name(index):<{width}}"
                    f"{predicted.seconds * 1e3:>14.2f}{took:>13}{predicted.wire_bytes / 1e6:>10.3f}"
                    + (f"{left:>11.3g}{kept:>10}" if current else "")
                )
                label = ""
        return lines

    def __repr__(self) -> str:
        further = ", ".join(repr(each) for each in self.candidates[2:])
        limit = (
            f", min_loss_decrease={self.min_loss_decrease!r}"
            if self.min_loss_decrease != 0.9
            else ""
        )
        return f"ronde.compression.auto([{further}]{limit})"


def _checked(candidates: Any) -> tuple[Predictable, ...]:
    if isinstance(candidates, str) or not isinstance(candidates, Iterable):
        raise TypeError(
            f"candidates must be a list of compressors, as [ronde.compression.int8()], not {candidates!r}"
        )
    chosen = tuple(resolved("candidates", each) for each in candidates)
    for each in chosen:
        if not isinstance(each, Predictable):
            raise TypeError(
                "candidates: a candidate must be a ronde.compression.Compressor or powersgd(), whose "
                f"cost can be predicted, not {each!r}"
            )
    return chosen


def _elements(parts: Parts) -> int:
    return sum(elements for _, elements in parts)


def _settled(seconds: Sequence[float]) -> Sequence[float]:
    """The second call of each turn, if there is one."""
    return seconds[1::2] or seconds


def _typical(seconds: Sequence[float]) -> float:
    return statistics.median(_settled(seconds))
