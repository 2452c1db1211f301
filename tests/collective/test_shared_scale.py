"""Sums of integers with shared scales: by the book, the same bits whatever adds them, nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde.compression import ErrorFeedback, shared_scale
from threads import Rank, run, run_all

ronde.init()

SIZES = (1, 2, 3, 4, 8)
COUNTS = (0, 1, 1000, 10_007, 100_001)
APART: dict[str, dict[str, Any]] = {
    "flat": {},
    "small segments": {"segment_bytes": 1000},
    "deterministic": {"deterministic": True},
    **{name: {"algorithm": {"allreduce": name}} for name in ("ring", "recursive_doubling")},
    "2 x 2": {"machines": [0, 0, 1, 1]},
    "mixed": {"machines": [0, 1, 1, 0]},
}


def values(rank: int, count: int, step: int = 0) -> np.ndarray:
    return np.random.default_rng([rank, count, step]).standard_normal(count).astype(np.float32)


def reduce(me: Rank, x: Any, method: Any, op: Any = ronde.Sum, **options: Any) -> np.ndarray:
    here: Any = SimpleNamespace(_communicator=me.communicator)
    found = ronde.allreduce(x, op, name="w", compression=method, process_set=here, **options)
    return np.asarray(found)


def by_the_book(inputs: Sequence[np.ndarray], bits: int, factor: float) -> tuple[Any, Any]:
    """The result, and the step of each element."""
    count = inputs[0].size
    result, steps = np.empty(count, np.float32), np.empty(count, np.float32)
    for at in range(0, count, 1024):
        block = slice(at, at + 1024)
        levels = np.float32(2 ** (bits - 1) - 1)
        step = max(np.abs(x[block]).max() for x in inputs) / levels
        inverse = np.float32(1) / step
        q = sum(np.rint(x[block] * inverse).astype(np.int64) for x in inputs)
        result[block] = (q * (np.float64(step) * factor)).astype(np.float32)
        steps[block] = step
    return result, steps


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_the_result_is_that_of_the_book_on_all_ranks(size: int, bits: int) -> None:
    def program(me: Rank) -> None:
        method = shared_scale(bits)
        here: Any = SimpleNamespace(_communicator=me.communicator)
        for count in COUNTS:
            inputs = [values(r, count) for r in range(size)]
            exact = np.sum(inputs, axis=0, dtype=np.float64) / size
            wanted, steps = by_the_book(inputs, bits, 1 / size)
            if size == 1:
                wanted = inputs[0]  # nothing has to be sent
            mine = inputs[me.rank].copy()
            result = reduce(me, mine, method, ronde.Average)
            np.testing.assert_array_equal(result, wanted)
            # Half a step for each rank, of which the mean is taken.
            assert (np.abs(result - exact) <= steps * (0.5 + 2**-10)).all()
            assert mine.tobytes() == inputs[me.rank].tobytes()
            ronde.allreduce_(mine, ronde.Average, name="w", compression=method, process_set=here)
            assert mine.tobytes() == result.tobytes()

    run_all(size, program)


def test_the_same_bits_whatever_adds_them_and_in_which_order() -> None:
    def program(me: Rank) -> list[bytes]:
        return [
            reduce(me, values(order[me.rank], 50_001), shared_scale(bits)).tobytes()
            for order in ((0, 1, 2, 3), (2, 0, 3, 1))
            for bits in (4, 8)
        ]

    first = None
    for options in APART.values():
        for found in run_all(4, program, **options):
            assert found[:2] == found[2:]
            first = first or found
            assert found == first


@pytest.mark.parametrize("op", [ronde.Sum, ronde.Average], ids=str)
@pytest.mark.parametrize("placement", ["flat", "2 x 2"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_what_is_not_in_the_results_is_in_the_residuals(
    rounding: str, placement: str, op: Any
) -> None:
    """With factors before and after."""
    size, steps, count = 4, 4, 10_007
    factor = 0.3 / (size if op is ronde.Average else 1)

    def program(me: Rank) -> Any:
        feedback = ErrorFeedback(shared_scale(3, rounding=rounding))
        factors = {"prescale_factor": 2.0, "postscale_factor": 0.3}
        got = np.zeros(count)
        for step in range(steps):
            got += reduce(me, values(me.rank, count, step) / 2, feedback, op, **factors)
        return got, feedback.residual("w")

    results = run_all(size, program, **APART[placement])
    given = sum(values(rank, count, step) for rank in range(size) for step in range(steps))
    held = sum(left.astype(np.float64) for _, left in results)
    for got, left in results:
        np.testing.assert_allclose(got + factor * held, factor * given, atol=2e-5)
        assert np.abs(left).max() > 0.01, "a test that could not fail"


def test_whole_numbers_are_exact_where_the_step_is_one() -> None:
    size, count = 3, 5000

    def whole(rank: int) -> np.ndarray:
        x = np.random.default_rng(rank).integers(-7, 8, count).astype(np.float32)
        x[::1024] = 7
        return x

    def program(me: Rank) -> None:
        exact = np.sum([whole(r) for r in range(size)], axis=0, dtype=np.float32)
        for rounding in ("nearest", "stochastic"):
            result = reduce(me, whole(me.rank), shared_scale(4, rounding=rounding))
            np.testing.assert_array_equal(result, exact)

    run_all(size, program)


@pytest.mark.parametrize("placement", ["flat", "2 x 2"])
def test_ranks_draw_numbers_of_their_own(placement: str) -> None:
    """So the sum is right on average, and its variance is the sum of theirs."""
    size, count, part = 4, 200_000, 0.3

    def program(me: Rank) -> np.ndarray:
        x = np.full(count, part, np.float32)
        x[::1024] = 7  # a step of 1
        result = reduce(me, x, shared_scale(4, rounding="stochastic", seed=2))
        return np.delete(result, np.r_[:count:1024])

    error = run_all(size, program, **APART[placement])[0] - size * part
    variance = size * part * (1 - part)
    assert abs(error.mean()) < 5 * np.sqrt(variance / error.size) + 2**-14
    assert error.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("placement", ["flat", "2 x 2"])
def test_what_is_not_finite_makes_its_block_nan_on_all_ranks(placement: str, bad: float) -> None:
    def program(me: Rank) -> bytes:
        clean = reduce(me, values(me.rank, 5000), shared_scale())
        x = values(me.rank, 5000)
        if me.rank == 2:
            x[1500] = bad
        result = reduce(me, x, shared_scale())
        assert np.isnan(result[1024:2048]).all()
        others = [np.delete(each, np.r_[1024:2048]) for each in (result, clean)]
        np.testing.assert_array_equal(*others)
        return clean.tobytes() + result.tobytes()

    results = run_all(4, program, **APART[placement])
    assert len(set(results)) == 1


def test_one_machine_is_exact() -> None:
    def program(me: Rank) -> None:
        exact = reduce(me, values(me.rank, 5000), None)
        assert reduce(me, values(me.rank, 5000), shared_scale(2)).tobytes() == exact.tobytes()

    run_all(4, program, shared=True)


@pytest.mark.parametrize("bits, width", [(4, 1), (8, 2)])
def test_as_many_bytes_are_sent_as_are_promised(bits: int, width: int) -> None:
    size, count = 4, 400_000

    def program(me: Rank) -> int:
        x = values(me.rank, count)
        reduce(me, x, shared_scale(bits))
        before = me.communicator.bytes_sent
        reduce(me, x, shared_scale(bits))
        return me.communicator.bytes_sent - before

    promised = 2 * (size - 1) / size * shared_scale(bits).summed_bytes(count, size)
    assert shared_scale(bits).summed_bytes(count, size) == width * count + 4 * 391
    for sent in run_all(size, program):
        assert promised <= sent <= 1.01 * promised


@pytest.mark.parametrize(
    "bits, ranks, most", [(4, 18, 4681), (8, 1, 258), (2, 127, 32767), (3, 42, 10922)]
)
def test_integers_are_as_wide_as_the_ranks_need(bits: int, ranks: int, most: int) -> None:
    c = shared_scale(bits)
    assert c.most_ranks == most
    assert c.integers(ranks) == np.int8
    assert c.integers(ranks + 1) == c.integers(most) == np.int16
    with pytest.raises(ValueError, match=f"{bits} bits of {most + 1} ranks do not fit int16"):
        c.integers(most + 1)


def test_too_many_ranks_are_refused_with_what_fits() -> None:
    with pytest.raises(ValueError, match=r"those of 258 ranks fit; 7 bits fit$"):
        shared_scale(8).integers(300)
    with pytest.raises(ValueError, match=r"those of 32767 ranks fit$"):
        shared_scale(2).integers(40_000)


def test_groups_do_not_change_results() -> None:
    """Blocks end with their arrays."""

    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        xs = [values(me.rank, count).reshape(-1, 1) for count in (3, 1500, 700)]
        grouped = ronde.grouped_allreduce(xs, compression=shared_scale(), process_set=here)
        for x, found in zip(xs, grouped, strict=True):
            np.testing.assert_array_equal(reduce(me, x, shared_scale(), ronde.Average), found)

    run_all(3, program)


def test_other_parameters_do_not_match() -> None:
    def program(me: Rank) -> None:
        reduce(me, values(me.rank, 3000), shared_scale(4 + me.rank))

    for result in run(2, program):
        assert isinstance(result, ronde.MismatchError)
        assert "shared_scale(bits=4)" in str(result)
        assert "shared_scale(bits=5)" in str(result)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        first = ErrorFeedback(shared_scale(3, rounding="stochastic", seed=1))
        for step in range(3):
            reduce(me, values(me.rank, 3000, step), first)
        restored = ErrorFeedback(shared_scale(3, rounding="stochastic", seed=1))
        restored.load_state_dict(first.state_dict(), here)
        for step in range(3, 6):
            both = [reduce(me, values(me.rank, 3000, step), each) for each in (first, restored)]
            assert both[0].tobytes() == both[1].tobytes()
        assert first.norms() == restored.norms()
        with pytest.raises(ValueError, match="belongs to"):
            ErrorFeedback(shared_scale(4)).load_state_dict(first.state_dict(), here)

    run_all(2, program)
