"""How calls are timed: back to back, on every rank, with as little as possible around them.

A call that takes less than 50 us would be measured together with the clock. Such calls are timed in
batches of that length, and p50, p99 and max are those of the batches' means.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["Times", "World", "estimate", "measure"]

_BATCH_SECONDS = 50e-6
_WARM_SECONDS = 0.02  # of calls before an estimate is believed
_WARM_SECONDS_AT_MOST = 1.0
_FEWEST = 5  # iterations

Call = Callable[[], Any]


class World(Protocol):
    """What the ranks need besides the collectives that are measured."""

    rank: int
    size: int

    def gather(self, numbers: Sequence[float]) -> Any:
        """The numbers of all ranks, as float64 of shape (size, len(numbers)); synchronises."""


class Times(NamedTuple):
    """Microseconds."""

    iterations: int
    mean: float
    p50: float
    p99: float
    max: float


def estimate(world: World, calls: Sequence[Call], warmup: int) -> float:
    """Seconds of a call, the same on all ranks. Warms up by as many calls, and each one at least once."""
    needed = max(warmup, len(calls))
    again = cycle(calls)
    done, total, number = 0, 0.0, 1
    while True:
        start = perf_counter()
        for call in islice(again, number):
            call()
        spent = float(np.max(world.gather([perf_counter() - start])))
        done, total = done + number, total + spent
        warm = total >= _WARM_SECONDS and done >= needed
        if warm or (total >= _WARM_SECONDS_AT_MOST and done >= min(2, needed)):
            return spent / number
        number = min(number * 4, max(1, math.ceil(_WARM_SECONDS_AT_MOST / 4 * number / spent)))


def measure(
    world: World, calls: Sequence[Call], seconds: float, iterations: int, guess: float
) -> Times:
    """Times so many iterations, or as many as take `seconds` if a call takes `guess` seconds.

    Every number is that of the rank where it is greatest. `guess` must be the same on all ranks.
    """
    iterations = iterations or max(_FEWEST, math.ceil(seconds / guess))
    batch = min(iterations, max(1, math.ceil(_BATCH_SECONDS / guess)))
    samples = math.ceil(iterations / batch)
    stamps: list[float] = []
    note, again, clock = stamps.append, cycle(calls), perf_counter
    collecting = gc.isenabled()
    gc.disable()
    try:
        world.gather([0.0])
        note(clock())
        for _ in range(samples):
            for call in islice(again, batch):
                call()
            note(clock())
    finally:
        if collecting:
            gc.enable()
    each = np.diff(np.array(stamps)) / batch * 1e6
    mine = [float(each.mean()), *np.percentile(each, [50, 99]).tolist(), float(each.max())]
    return Times(samples * batch, *np.max(world.gather(mine), axis=0).tolist())
