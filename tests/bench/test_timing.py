"""How calls are timed, with a clock of our own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from ronde.bench import timing


class Clock:
    """Time that passes only in calls."""

    now = 0.0

    def call(self, seconds: Iterator[float]) -> Callable[[], None]:
        def call() -> None:
            self.now += next(seconds)

        return call


class World:
    """Rank 0 of two, where the other rank is so many times slower."""

    rank, size = 0, 2

    def __init__(self, slower: float = 1.0) -> None:
        self.slower = slower

    def gather(self, numbers: Sequence[float]) -> Any:
        return np.array([numbers, [self.slower * number for number in numbers]])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    return clock


def always(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_statistics_are_over_iterations(clock: Clock) -> None:
    durations = [1e-3] * 98 + [2e-3, 5e-3]
    times = timing.measure(World(), [clock.call(iter(durations))], 1.0, 100, 1e-3)
    assert times.iterations == 100
    assert times.mean == pytest.approx(1050)
    assert times.p50 == pytest.approx(1000)
    assert times.p99 == pytest.approx(np.percentile(np.array(durations) * 1e6, 99))
    assert times.max == pytest.approx(5000)


def test_the_slowest_rank_counts(clock: Clock) -> None:
    times = timing.measure(World(slower=3), [clock.call(always(1e-3))], 1.0, 10, 1e-3)
    assert times[1:] == pytest.approx((3000, 3000, 3000, 3000))


def test_iterations_follow_from_the_seconds(clock: Clock) -> None:
    times = timing.measure(World(), [clock.call(always(1e-3))], 0.2, 0, 1e-3)
    assert times.iterations == 200
    slow = timing.measure(World(), [clock.call(always(10.0))], 0.2, 0, 10.0)
    assert slow.iterations == 5


def test_short_calls_are_timed_in_batches(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(timing, "perf_counter", lambda: looked.append(0) or clock.now)
    times = timing.measure(World(), [clock.call(always(1e-6))], 0.0, 1000, 1e-6)
    assert times.mean == pytest.approx(1.0)
    batches = len(looked) - 1
    assert times.iterations // batches in (50, 51)  # 50 us
    assert 1000 <= times.iterations <= 1050


def test_calls_take_turns(clock: Clock) -> None:
    order: list[int] = []

    def call(index: int) -> Callable[[], None]:
        def call() -> None:
            order.append(index)
            clock.now += 1e-3

        return call

    timing.measure(World(), [call(0), call(1), call(2)], 0.0, 7, 1e-3)
    assert order == [0, 1, 2, 0, 1, 2, 0]


def test_warming_up_calls_every_buffer_and_agrees_on_the_time(clock: Clock) -> None:
    calls = [0] * 64

    def call(index: int) -> Callable[[], None]:
        def call() -> None:
            calls[index] += 1
            clock.now += 1e-3

        return call

    guess = timing.estimate(World(slower=2), [call(index) for index in range(64)], warmup=5)
    assert guess == pytest.approx(2e-3)
    assert min(calls) >= 1


def test_warming_up_of_slow_calls_ends(clock: Clock) -> None:
    assert timing.estimate(World(), [clock.call(always(4.0))], warmup=1000) == pytest.approx(4.0)
    assert clock.now <= 20


def test_the_collector_of_garbage_rests_and_comes_back(clock: Clock) -> None:
    seen: list[bool] = []
    timing.measure(World(), [lambda: seen.append(gc.isenabled())], 0.0, 3, 1.0)
    assert seen == [False] * 3
    assert gc.isenabled()
