"""Compressed allreduce: the same bits everywhere, nothing lost that the residual does not hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from hypothesis import given, settings
from hypothesis import strategies as st
from ronde import _core, arrays
from threads import Rank, run, run_all

ronde.init()

SIZES = (1, 2, 3, 4, 7)
NAMES = tuple(_core.compressor_names())
SPARSE = {
    "topk": _core.Compressor.topk(0.01),
    "block_topk": _core.Compressor.block_topk(0.05, 256),
    "threshold": _core.Compressor.threshold(1.5),
}
ADDING = {"randomk": _core.Compressor.randomk(0.02)}  # whose payloads are reduced exactly
EVERY = (*NAMES, *SPARSE, *ADDING)
# Links on which messages cost all, or bytes.
WAYS = {
    "gathered": _core.Link(1.0, 1.0, 1e-12, 1e-12),
    "by slices": _core.Link(1e-12, 1e-12, 1.0, 1.0),
}
# Nothing, less than a block, several blocks and an odd end, and several segments for every rank.
COUNTS = (0, 1, 1000, 10_007, 300_001)
PLACEMENTS = ([0, 0, 1, 1], [0, 1, 0, 1], [2, 0, 1, 1, 2, 0])


def values(rank: int, count: int, step: int = 0) -> np.ndarray:
    return np.random.default_rng([rank, count, step]).standard_normal(count).astype(np.float32)


def make(name: str) -> _core.Compressor:
    return (SPARSE | ADDING).get(name) or _core.Compressor(name)


def reduce(
    me: Rank,
    x: np.ndarray,
    compressor: _core.Compressor,
    residual: np.ndarray | None = None,
    *,
    op: Any = ronde.Sum,
    key: int = 7,
    out: np.ndarray | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    text: str = "c",
    per_rank: bool = False,
) -> np.ndarray:
    compression = _core.Compression(compressor, residual, key, per_rank)
    output = np.empty_like(x) if out is None else out
    dtype = arrays.view(x).dtype
    me.communicator.allreduce_bucket(
        [x], [output], dtype, op, None, *scales, compression, f"compression={text}"
    )
    return output


def slices(count: int, grain: int, size: int) -> list[slice]:
    """As even as possible, cut at the grain."""
    grains = -(-count // grain)
    cuts = [min(grains * place // size * grain, count) for place in range(size + 1)]
    return [slice(begin, end) for begin, end in pairwise(cuts)]


def expected(inputs: list[np.ndarray], compressor: _core.Compressor) -> np.ndarray:
    """By the book, for compressors that draw no random numbers: contributions of others are compressed
    once, added in the order of the ranks, and the sum is compressed again."""

    def through(x: np.ndarray) -> np.ndarray:
        decoded = np.empty_like(x)
        compressor.decode(compressor.encode(x, None, 0, 0), decoded, False)
        return decoded

    result = np.empty_like(inputs[0])
    if len(inputs) == 1:
        return inputs[0]  # nothing has to be sent
    for owner, part in enumerate(slices(result.size, compressor.grain, len(inputs))):
        total = np.zeros(part.stop - part.start, np.float32)
        for rank, x in enumerate(inputs):
            total += x[part] if rank == owner else through(x[part])
        result[part] = through(total)
    return result


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("qsgd", "ternary")])
@pytest.mark.parametrize("size", SIZES)
def test_the_result_is_that_of_the_book_on_all_ranks(name: str, size: int) -> None:
    compressor = _core.Compressor(name)

    def program(me: Rank) -> None:
        for count in COUNTS:
            inputs = [values(r, count) for r in range(size)]
            mine = inputs[me.rank].copy()
            result = reduce(me, mine, compressor)
            # The first addition is to nothing, not to zero: -0 stays -0 there.
            np.testing.assert_array_equal(result, expected(inputs, compressor))
            assert (mine == inputs[me.rank]).all(), "the input was changed"
            in_place = reduce(me, mine, compressor, out=mine)
            assert in_place is mine or np.shares_memory(in_place, mine)
            assert mine.tobytes() == result.tobytes()

    run_all(size, program)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_get_the_same_bits(name: str, size: int) -> None:
    compressor = make(name)

    def program(me: Rank) -> list[bytes]:
        return [reduce(me, values(me.rank, count), compressor).tobytes() for count in COUNTS]

    results = run_all(size, program)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_late_messages_of_more_segments_than_are_under_way(size: int, seed: int) -> None:
    """So many that their memory is used again."""
    compressor = _core.Compressor("bf16")
    inputs = [values(r, 1_500_001) for r in range(size)]
    wanted = expected(inputs, compressor)

    def program(me: Rank) -> None:
        for _ in range(2):
            mine = inputs[me.rank].copy()
            reduce(me, mine, compressor, out=mine)
            np.testing.assert_array_equal(mine, wanted)
            ones = np.ones(9, np.float32)  # a call of another kind between them
            assert (me.communicator.allreduce(ones, None, ronde.Sum) == size).all()

    run_all(size, program, faults={"seed": seed, "delay": 0.4})


@pytest.mark.parametrize("dies_after", [8, 25, 60])
def test_the_others_hear_of_a_rank_that_dies(dies_after: int) -> None:
    def program(me: Rank) -> None:
        for step in range(9):
            x = values(me.rank, 300_001, step)
            reduce(me, x, _core.Compressor("bf16"), np.zeros(x.size, np.float32))

    for error in run(3, program, faults={"dies": 2, "dies_after": dies_after})[:2]:
        assert isinstance(error, ronde.RankFailedError)


def kept_account(
    size: int, count: int, factor: float, call: Callable[..., np.ndarray], **options: Any
) -> None:
    """What the results of all steps add up to, and what the residuals would still add to them, `factor` times
    their sum, is `factor` times the sum of all inputs. `call(me, x, residual, step)` reduces."""
    steps = 3

    def program(me: Rank) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        residual = np.zeros(count, np.float32)
        given, got = np.zeros(count), np.zeros(count)
        for step in range(steps):
            x = values(me.rank, count, step)
            got += call(me, x, residual, step)
            given += x
        return given, got, residual

    results = run_all(size, program, **options)
    total = factor * sum(given for given, _, _ in results)
    held = factor * sum(residual.astype(np.float64) for _, _, residual in results)
    np.testing.assert_allclose(results[0][1] + held, total, atol=1e-4)
    assert np.abs(held).max() > 1e-5, "a test that could not fail"
    assert all((got == results[0][1]).all() for _, got, _ in results)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("op", [ronde.Sum, ronde.Average], ids=["sum", "average"])
def test_what_was_not_sent_is_in_the_residuals(name: str, op: Any) -> None:
    compressor, size = make(name), 3
    factor = 0.5 / (size if op is ronde.Average else 1)

    def call(me: Rank, x: np.ndarray, residual: np.ndarray, step: int) -> np.ndarray:
        # The input stands for what comes after the factor before: 1.5 x.
        before = (x / np.float32(1.5)).astype(np.float32)
        return reduce(me, before, compressor, residual, op=op, key=step, scales=(1.5, 0.5))

    kept_account(size, 20_011, factor, call)


@pytest.mark.parametrize("machines", PLACEMENTS, ids=str)
@pytest.mark.parametrize("per_rank", [False, True], ids=["machines", "per rank"])
@pytest.mark.parametrize("name", ["fp16", "int4", "sign", "topk"])
def test_over_machines_what_was_not_sent_is_in_the_residuals(
    name: str, per_rank: bool, machines: list[int]
) -> None:
    compressor, size = make(name), len(machines)

    def call(me: Rank, x: np.ndarray, residual: np.ndarray, step: int) -> np.ndarray:
        options = {"op": ronde.Average, "key": step, "per_rank": per_rank}
        return reduce(me, x, compressor, residual, **options)

    kept_account(size, 20_022, 1 / size, call, machines=machines)


def test_a_factor_of_zero_leaves_the_residual_alone() -> None:
    def program(me: Rank) -> None:
        residual = np.ones(5000, np.float32)
        x = np.zeros(5000, np.float32)
        assert not reduce(me, x, _core.Compressor("int8"), residual, scales=(1.0, 0.0)).any()
        own = slices(5000, _core.Compressor("int8").grain, 2)[me.rank]
        assert (residual[own] == 1).all()
        assert np.isfinite(residual).all()

    run_all(2, program)


def test_the_residual_keeps_what_the_average_of_many_leaves_out() -> None:
    """In units of a contribution: the same residual at the owner and elsewhere adds the same to a result."""
    compressor, size, count = _core.Compressor("int8"), 4, 4096

    def program(me: Rank) -> np.ndarray:
        residual = np.zeros(count, np.float32)
        if me.rank == 0:
            residual[:] = 64.0  # of rank 0, who owns the first quarter
        return reduce(me, np.zeros(count, np.float32), compressor, residual, op=ronde.Average)

    for result in run_all(size, program):
        np.testing.assert_allclose(result, np.full(count, 16.0, np.float32), rtol=1e-5)


def test_the_ranks_of_a_machine_draw_numbers_of_their_own() -> None:
    half = values(0, 8192)

    def program(me: Rank) -> np.ndarray:
        return reduce(me, np.concatenate([half, half]), _core.Compressor("ternary"))

    result = run_all(4, program, machines=[0, 0, 1, 1])[0]
    assert (result[:8192] != result[8192:]).any()


@pytest.mark.parametrize(("size", "machines"), [(2, None), (4, [0, 0, 1, 1])])
def test_factors_before_keep_a_compressor_from_overflow(
    size: int, machines: list[int] | None
) -> None:
    def program(me: Rank) -> np.ndarray:
        x = np.full(4000, 2.0**18, np.float32)
        result = reduce(me, x, _core.Compressor("fp16"), scales=(2.0**-10, 1.0))
        assert (x == 2.0**18).all(), "the input was changed"
        return result

    for result in run_all(size, program, machines=machines):
        assert (result == 2**8 * size).all()


def test_without_a_residual_what_is_left_out_is_lost() -> None:
    compressor = _core.Compressor("sign")

    def program(me: Rank) -> np.ndarray:
        return reduce(me, values(me.rank, 5000), compressor)

    exact = sum(values(r, 5000) for r in range(2))
    assert np.abs(run_all(2, program)[0] - exact).max() > 0.1


@pytest.mark.parametrize("name", ["qsgd", "ternary"])
def test_random_compressors_are_right_on_average_and_depend_on_the_key(name: str) -> None:
    compressor, count, keys = _core.Compressor(name), 2048, 400

    def program(me: Rank) -> np.ndarray:
        x = values(me.rank, count)
        return np.stack([reduce(me, x, compressor, key=key) for key in range(keys)])

    found = run_all(3, program)[0].astype(np.float64)
    exact = sum(values(r, count).astype(np.float64) for r in range(3))
    spread = found.std(axis=0)
    assert spread.min() > 0
    # Of 2048 means of 400, the furthest is within 5 standard errors but once in a thousand times.
    assert (np.abs(found.mean(axis=0) - exact) <= 5.5 * spread / np.sqrt(keys) + 1e-6).all()


@pytest.mark.parametrize("name", EVERY)
def test_nan_and_infinity_come_out(name: str) -> None:
    compressor = make(name)

    def program(me: Rank) -> np.ndarray:
        x = values(me.rank, 9000)
        if me.rank == 1:
            x[[5, 8999]] = np.nan, np.inf
        return reduce(me, x, compressor, np.zeros(9000, np.float32))

    for result in run_all(3, program):
        assert not np.isfinite(result[[5, 8999]]).any()


@pytest.mark.parametrize("machines", PLACEMENTS, ids=str)
@pytest.mark.parametrize("name", ["int8", "sign", "topk"])
def test_machines_reduce_exactly_and_compress_what_crosses(name: str, machines: list[int]) -> None:
    """With whole numbers that a machine's sum makes zero, nothing is left to compress."""
    compressor, count = make(name), 70_001
    members = {m: [r for r, of in enumerate(machines) if of == m] for m in machines}

    def program(me: Rank) -> np.ndarray:
        here = members[machines[me.rank]]
        x = values(here[0], count) * (1 if here.index(me.rank) == 0 else -1)
        return reduce(me, x.astype(np.float32), compressor)

    for result in run_all(len(machines), program, machines=machines):
        assert (result == 0).all()


# One rank, ranks of one machine, and machines with several: where nothing would be compressed, or
# sums of machines.
TOGETHER = {
    "one rank": (1, {}),
    "one machine of two": (2, {"shared": True}),
    "one machine of four": (4, {"shared": True}),
    "two machines of two": (4, {"machines": [0, 0, 1, 1]}),
}


@pytest.mark.parametrize("placement", TOGETHER)
@pytest.mark.parametrize(
    "name", [name for name in (*NAMES, *SPARSE) if name not in ("qsgd", "ternary")]
)
def test_per_rank_compresses_as_if_all_were_on_machines_of_their_own(
    name: str, placement: str
) -> None:
    """A single rank encodes and decodes, so that it leaves out what others would."""
    compressor = make(name)
    size, options = TOGETHER[placement]
    counts = [count for count in COUNTS if count]

    def program(me: Rank) -> list[tuple[bytes, bytes]]:
        found = []
        for count in counts:
            residual = np.zeros(count, np.float32)
            for step in range(2):
                x = values(me.rank, count, step)
                result = reduce(me, x, compressor, residual, op=ronde.Average, per_rank=True)
            found.append((result.tobytes(), residual.tobytes()))
        return found

    together = run_all(size, program, **options)
    assert together == run_all(size, program)
    if size == 1:
        for count, (result, residual) in zip(counts, together[0], strict=True):
            left = np.zeros(count, np.float32)
            wanted = np.zeros(count, np.float32)
            for step in range(2):
                payload = compressor.encode(values(0, count, step), left, 7)
                compressor.decode(payload, wanted, False)
            assert result == wanted.tobytes()
            assert residual == left.tobytes()


@pytest.mark.parametrize("placement", TOGETHER)
def test_a_selection_per_rank_is_of_its_own_values(placement: str) -> None:
    """Top-k of a sum would be other positions."""
    size, options = TOGETHER[placement]
    count, compressor = 40_000, make("topk")

    def program(me: Rank) -> np.ndarray:
        residual = np.zeros(count, np.float32)
        x = values(me.rank, count)
        reduce(me, x, compressor, residual, per_rank=True)
        return np.flatnonzero(residual != x)

    for rank, sent in enumerate(run_all(size, program, **options)):
        largest = np.argsort(-np.abs(values(rank, count)), kind="stable")[: count // 100]
        np.testing.assert_array_equal(sent, np.sort(largest))


def test_per_rank_and_per_machine_do_not_match() -> None:
    def program(me: Rank) -> None:
        reduce(me, np.ones(3000, np.float32), make("int8"), per_rank=me.rank == 1)

    for result in run(2, program, shared=True):
        assert isinstance(result, ronde.MismatchError)
        assert "compression=c, per rank" in str(result)


def test_one_machine_is_exact() -> None:
    def program(me: Rank) -> np.ndarray:
        return reduce(me, values(me.rank, 50_000), _core.Compressor("sign"), op=ronde.Average)

    inputs = [values(r, 50_000) for r in range(4)]
    exact = ((inputs[0] + inputs[1]) + inputs[2] + inputs[3]) / np.float32(4)
    for result in run_all(4, program, shared=True):
        assert (result == exact).all()


@pytest.mark.parametrize("odd", range(4))
@pytest.mark.parametrize(
    "differs",
    [
        lambda me, x: reduce(me, x, make("int8"), out=x, per_rank=True),
        lambda me, x: reduce(me, x, make("int8"), out=x, text="d"),
        lambda me, x: me.communicator.allreduce_bucket(
            [x], [x], arrays.view(x).dtype, ronde.Sum, None, 1.0, 1.0, None, ""
        ),
        lambda me, x: me.communicator.barrier(),
    ],
    ids=["per rank", "another compressor", "exact", "barrier"],
)
def test_a_difference_on_one_of_several_machines_raises_on_all(differs: Any, odd: int) -> None:
    def program(me: Rank) -> None:
        for count in (300, 30_000):
            x = values(me.rank, count)
            with pytest.raises(ronde.MismatchError, match=rf"rank {odd}: "):
                if me.rank == odd:
                    differs(me, x)
                else:
                    reduce(me, x, make("int8"), out=x)
            np.testing.assert_array_equal(x, values(me.rank, count))
            reduce(me, x, make("int8"))

    run_all(4, program, machines=[0, 0, 1, 1])


def test_other_compressions_and_no_compression_do_not_match() -> None:
    def program(me: Rank) -> None:
        reduce(me, np.ones(3000, np.float32), _core.Compressor("int8"), text=f"c{me.rank}")

    for result in run(2, program):
        assert isinstance(result, ronde.MismatchError)
        assert "compression=c0" in str(result)
        assert "compression=c1" in str(result)


def test_groups_that_differ_are_told_of_before_anything_is_reduced() -> None:
    int8, int4 = ronde.compression.int8(), ronde.compression.int4()

    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        xs = [np.ones((30, 100), np.float32), np.ones(500, np.float32)]
        for ways in (
            ([int8, None], [None, int8]),
            (None, int8),
            ([int8, None], [int4, None]),
        ):
            for _ in range(2):  # with a new plan and with a known one
                with pytest.raises(ronde.MismatchError, match=r"compression=.*int8\(\) of"):
                    ronde.grouped_allreduce_(
                        xs, ronde.Sum, "g", compression=ways[me.rank], process_set=here
                    )
                assert all((x == 1).all() for x in xs)

    run_all(2, program)


def test_what_cannot_be_compressed_is_refused_before_anything_is_sent() -> None:
    def program(me: Rank) -> None:
        c = _core.Compressor("int8")
        with pytest.raises(TypeError, match="compression needs float32"):
            reduce(me, np.ones(3), c)
        with pytest.raises(ValueError, match=r"ronde\.Max"):
            reduce(me, np.ones(3, np.float32), c, op=ronde.Max)
        for residual in (np.zeros(2, np.float32), np.zeros(3)):
            with pytest.raises(ValueError, match="residual must be a float32 array of 3"):
                reduce(me, np.ones(3, np.float32), c, residual)
        with pytest.raises(TypeError):
            _core.Compression(None, None, 0)
        assert (reduce(me, np.ones(3, np.float32), c) == 2).all()

    run_all(2, program)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("size", SIZES[1:])
def test_sparse_sums_are_those_of_the_book(name: str, size: int, way: str) -> None:
    """Each rank selects from its own vector as a whole, and the selections are added in the order of the
    ranks. What is not selected stays in the residual, over several steps."""
    compressor, steps = make(name), 3

    def through(x: np.ndarray, residual: np.ndarray, key: int) -> np.ndarray:
        sent = np.empty_like(x)
        compressor.decode(compressor.encode(x, residual, key), sent)
        return sent

    def program(me: Rank) -> None:
        me.communicator.set_link(WAYS[way])
        for count in COUNTS:
            residuals = [np.zeros(count, np.float32) for _ in range(size)]
            mine = np.zeros(count, np.float32)
            for step in range(steps):
                inputs = [values(r, count, step) for r in range(size)]
                result = reduce(me, inputs[me.rank], compressor, mine, key=step)
                wanted = np.zeros(count, np.float32)
                for x, residual in zip(inputs, residuals, strict=True):
                    wanted += through(x, residual, step)
                np.testing.assert_array_equal(result, wanted)
                np.testing.assert_array_equal(mine, residuals[me.rank])

    run_all(size, program)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("machines", PLACEMENTS, ids=str)
@pytest.mark.parametrize("name", [*SPARSE, *ADDING])
def test_sparse_sums_over_machines_lose_nothing(name: str, machines: list[int], way: str) -> None:
    compressor, count, steps = make(name), 70_001, 3

    def program(me: Rank) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        me.communicator.set_link(WAYS[way])
        residual = np.zeros(count, np.float32)
        given, got = np.zeros(count), np.zeros(count)
        for step in range(steps):
            x = values(me.rank, count, step)
            got += reduce(me, x, compressor, residual, key=step)
            given += x
        return given, got, residual

    results = run_all(len(machines), program, machines=machines)
    given, got, held = (sum(part) for part in zip(*results, strict=True))
    np.testing.assert_allclose(got / len(machines) + held, given, atol=1e-4)
    assert all((result[1] == results[0][1]).all() for result in results)


@pytest.mark.parametrize("alike", [True, False], ids=["same entries", "different entries"])
@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.1, 0.4])
def test_sparse_sums_send_no_more_than_split_sparse_allreduce(ratio: float, alike: bool) -> None:
    """In words of 4 bytes: 2k(P-1)/P to the owners, and 2u(P-1)/P of a sum with u entries, or all n of them
    (SparCML); a fifth more is for headers, and for slices that do not have equally many entries."""
    compressor, size, count = _core.Compressor.topk(ratio), 8, 400_000

    def program(me: Rank) -> tuple[int, int]:
        me.communicator.set_link(WAYS["by slices"])
        x = values(0 if alike else me.rank, count)
        before = me.communicator.bytes_sent
        result = reduce(me, x, compressor)
        return me.communicator.bytes_sent - before, np.count_nonzero(result)

    k = round(ratio * count)
    for sent, union in run_all(size, program):
        assert union == k if alike else k < union <= k * size
        assert sent <= 1.2 * 4 * (2 * k + min(2 * union, count)) * (size - 1) / size


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["topk", "block_topk", "threshold", "randomk"]),
    st.sampled_from([2, 3, 4, 8]),
    st.one_of(st.integers(0, 300), st.sampled_from([4096, 40_001])),
    st.sampled_from([ronde.Sum, ronde.Average]),
    st.integers(0, 2**20),
)
def test_both_ways_add_up_whole_numbers(
    name: str, size: int, count: int, op: Any, seed: int
) -> None:
    """Which float32 adds without rounding: the same bits, on all ranks and by both ways."""
    compressor, random = make(name), np.random.default_rng(seed)
    inputs = random.integers(-9, 10, (size, count)).astype(np.float32)
    sent = np.zeros((size, count), np.float32)
    for x, of in zip(inputs, sent, strict=True):
        compressor.decode(compressor.encode(x, key=seed), of)

    def program(me: Rank) -> tuple[bytes, ...]:
        found = []
        for link in WAYS.values():
            me.communicator.set_link(link)
            residual = np.zeros(count, np.float32)
            result = reduce(me, inputs[me.rank], compressor, residual, op=op, key=seed)
            divisor = size if op is ronde.Average else 1
            np.testing.assert_allclose(result, sent.sum(axis=0) / divisor, rtol=1e-6)
            assert (residual == inputs[me.rank] - sent[me.rank]).all()
            found.append((result + np.float32(0)).tobytes())  # without the signs of zeros
        return tuple(found)

    results = run_all(size, program)
    assert len({each for result in results for each in result}) == 1


def test_sparse_payloads_are_gathered_where_that_is_faster_whatever_they_hold() -> None:
    def seconds(payload: int, ranks: int, link: Any) -> tuple[float, float]:
        step = link.alpha + max(ranks - 2, 0) * link.overhead
        by_slices = 2 * step + 2 * (ranks - 1) / ranks * payload * link.beta
        return step + (ranks - 1) * payload * link.beta, by_slices

    links = [
        _core.Link(a, o, b, 1e-10) for a in (1e-6, 1e-3) for o in (0, 1e-5) for b in (1e-10, 1e-7)
    ]
    for link in links:
        for ranks in (1, 2, 3, 4, 8, 64):
            chosen = []
            for payload in (0, 1, 100, 10_000, 1_000_000, 100_000_000):
                gathered, by_slices = seconds(payload, ranks, link)
                chosen.append(_core.better_gathered(payload, ranks, link))
                assert chosen[-1] == (gathered <= by_slices)
            assert chosen[0]
            assert all(chosen) or ranks > 2
            assert chosen == sorted(chosen, reverse=True), "from some length on by slices"


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_link_decides_what_travels(way: str, deterministic: bool) -> None:
    """Where all select the same: all payloads to all, or a slice of them and as much of the sum. In
    deterministic mode the link has no say."""
    compressor, size, count = _core.Compressor.topk(0.01), 8, 400_000
    payload = compressor.capacity_of_whole(count)

    def program(me: Rank) -> int:
        me.communicator.set_link(WAYS[way])
        before = me.communicator.bytes_sent
        reduce(me, values(0, count), compressor)
        return int(me.communicator.bytes_sent - before)

    payloads = size - 1 if way == "gathered" and not deterministic else 2 * (size - 1) / size
    for sent in run_all(size, program, deterministic=deterministic):
        assert payloads * payload * 0.8 <= sent <= payloads * payload * 1.2


def test_random_entries_travel_without_positions() -> None:
    """2k(P-1)/P words, as an exact allreduce of k numbers."""
    ratio, size, count = 0.01, 8, 400_000
    compressor = _core.Compressor.randomk(ratio)

    def program(me: Rank) -> int:
        me.communicator.set_link(WAYS["by slices"])
        before = me.communicator.bytes_sent
        reduce(me, values(me.rank, count), compressor)
        return int(me.communicator.bytes_sent - before)

    words = 2 * ratio * count * (size - 1) / size
    for sent in run_all(size, program):
        assert 4 * words <= sent <= 1.1 * 4 * words


def test_ranks_draw_the_same_entries_whatever_each_has_drawn_before() -> None:
    """Sums of others would be wrong. What a rank compresses by itself leaves its draws as they are."""

    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        compressor = ronde.compression.randomk(0.1)
        x = values(0, 1000)
        if me.rank == 0:
            compressor.compress(x)
        same = ronde.allreduce(x, ronde.Sum, name="w", compression=compressor, process_set=here)
        assert np.count_nonzero(same) == 100
        if me.rank == 0:
            compressor = ronde.compression.randomk(0.1)
        seen = [same]
        for _ in range(3):
            seen.append(
                ronde.allreduce(x, ronde.Sum, name="w", compression=compressor, process_set=here)
            )
            chosen = seen[-1] != 0
            assert np.count_nonzero(chosen) == 100
            np.testing.assert_array_equal(seen[-1][chosen], 2 * x[chosen])
        assert len({each.tobytes() for each in seen}) == 4

    run_all(2, program)


@pytest.mark.parametrize("machines", [None, *PLACEMENTS], ids=str)
@pytest.mark.parametrize("op", [ronde.Sum, ronde.Average], ids=str)
def test_random_entries_are_reduced_exactly(op: Any, machines: list[int] | None) -> None:
    """Each entry of a result is the sum of all ranks, or 0, and then all of it is in the residuals."""
    size, count, compressor = len(machines or [0] * 3), 30_001, make("randomk")

    def program(me: Rank) -> tuple[np.ndarray, np.ndarray]:
        x, residual = np.round(8 * values(me.rank, count)), np.zeros(count, np.float32)
        return reduce(me, x, compressor, residual, op=op), residual

    results = run_all(size, program, machines=machines)
    exact = sum(np.round(8 * values(r, count)) for r in range(size))
    wanted = exact / np.float32(size if op is ronde.Average else 1)
    held = sum(residual for _, residual in results)
    for result, _ in results:
        sent = result != 0
        assert sent.any()
        np.testing.assert_array_equal(result[sent], wanted[sent])
        np.testing.assert_array_equal(held, np.where(sent, 0, exact))
        assert sent.sum() <= 0.02 * count + 3  # k is rounded for each slice
