"""The share of the expected loss decrease that is kept, against what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core
from ronde.compression._loss_decrease import PERIOD, LossDecrease
from ronde.compression._method import PythonMethod, Steps
from threads import Rank, run_all

ronde.init()

SIZE, ROWS, COLUMNS = 3, 40, 64
SIGNAL = np.random.default_rng(7).standard_normal((ROWS, COLUMNS)).astype(np.float32)


def gradient(rank: int, step: int) -> np.ndarray:
    """A signal that stays, and noise that does not."""
    noise = np.random.default_rng([rank, step]).standard_normal(SIGNAL.shape)
    return (SIGNAL + 0.5 * noise).astype(np.float32)


class Watched(PythonMethod):
    """Exact reduction, of whose results `send` makes what is sent instead."""

    def __init__(self, send: Callable[[np.ndarray, int], np.ndarray]) -> None:
        super().__init__()
        self.send = send
        self.decrease = LossDecrease()

    def _reduce(self, bucket: _core.Bucket, residual: Any, step: int) -> Steps:
        yield from self.decrease.before(bucket)
        yield _core.Reduce(bucket)
        (out,) = bucket.outputs
        out[...] = self.send(out.copy(), step)
        self.decrease.after(bucket)

    def __repr__(self) -> str:
        return "Watched"


def followed(
    send: Callable[[np.ndarray, int], np.ndarray],
    op: _core.Op = _core.Op.Average,
    factors: tuple[float, float] = (1.0, 1.0),
    steps: int = PERIOD + 10,
    given: Callable[[int, int], np.ndarray] = gradient,
) -> list[LossDecrease]:
    """What the ranks see of gradients."""

    def program(me: Rank) -> LossDecrease:
        watched, here = Watched(send), SimpleNamespace(_communicator=me.communicator)
        scales = dict(zip(("prescale_factor", "postscale_factor"), factors, strict=True))
        for step in range(steps):
            x = given(me.rank, step)
            ronde.allreduce(x, op, "w", compression=watched, process_set=here, **scales)  # type: ignore
        return watched.decrease

    return run_all(SIZE, program)


@pytest.mark.parametrize("op", [_core.Op.Sum, _core.Op.Average])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.25, 3.0)])
def test_exact_results_keep_all_of_it(op: _core.Op, factors: tuple[float, float]) -> None:
    for each in followed(lambda exact, step: exact, op, factors):
        assert each.kept == pytest.approx(1.0, rel=1e-5)
        assert not each.is_below(0.999)


@pytest.mark.parametrize("part", [0.0, 0.5, -1.0])
def test_a_part_keeps_a_part(part: float) -> None:
    for each in followed(lambda exact, step: np.float32(part) * exact):
        assert each.kept == pytest.approx(part, abs=1e-5)
        assert each.is_below(part + 0.1)
        assert not each.is_below(part - 0.1)


def test_noise_that_is_left_out_does_not_count() -> None:
    for each in followed(lambda exact, step: SIGNAL):
        assert each.kept == pytest.approx(1.0, abs=0.05)
        assert not each.is_below(0.9)


def test_noise_that_is_added_does_not_count_for_much() -> None:
    def noisy(exact: np.ndarray, step: int) -> Any:
        return exact + np.random.default_rng(step).standard_normal(exact.shape).astype(np.float32)

    for each in followed(noisy):
        assert not each.is_below(0.9)


@pytest.mark.parametrize("part", [1.0, 0.2])
def test_without_an_expected_decrease_nothing_is_lost(part: float) -> None:
    """Where each gradient answers the one before, as at the end of training."""

    def to_and_fro(rank: int, step: int) -> np.ndarray:
        return (-1.0) ** step * gradient(rank, step)

    for each in followed(lambda exact, step: np.float32(part) * exact, given=to_and_fro):
        assert each.kept is None
        assert not each.is_below(0.9)


def test_all_ranks_come_to_the_same() -> None:
    first, *others = followed(lambda exact, step: np.float32(0.8) * exact)
    assert all(each._pairs == first._pairs for each in others)


def test_little_is_known_at_first() -> None:
    for each in followed(lambda exact, step: 0 * exact, steps=PERIOD // 2):
        assert each.kept is None
        assert not each.is_below(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_steps_that_are_not_finite_tell_nothing(bad: float) -> None:
    def overflown(exact: np.ndarray, step: int) -> Any:
        return np.full_like(exact, bad) if step % 3 == 0 else exact

    for each in followed(overflown):
        assert each.kept == pytest.approx(1.0, rel=1e-5)


def test_where_nothing_is_left_to_learn_nothing_is_said() -> None:
    def nothing(rank: int, step: int) -> np.ndarray:
        return np.zeros(100, np.float32)

    for each in followed(lambda exact, step: exact, given=nothing):
        assert each.kept is None
        assert not each.is_below(1.0)
