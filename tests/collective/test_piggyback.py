"""Short vectors that are piggybacked on phase 0, and those that are not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import ronde
from ronde import _core
from threads import Rank, run, run_all
from values import CASES, example, numpy_dtype, same_bits

F32, SUM = _core.DType.float32, ronde.Sum

# Where latency costs much, contributions go everywhere; not where bytes do.
LINKS = {
    "piggyback": _core.Link(alpha=1e-3, overhead=1e-6, beta=1e-12, gamma=1e-10),
    "plain": _core.Link(alpha=1e-6, overhead=1e-6, beta=1e-6, gamma=1e-10),
}
each_way = pytest.mark.parametrize("way", LINKS)
LEAST = 4096  # bytes: shorter vectors are judged as on an ordinary Ethernet
HEADER = 16  # bytes of a message of phase 0


def allreduce(me: Rank, mine: np.ndarray, output: np.ndarray | None = None) -> np.ndarray:
    return me.communicator.allreduce(mine, output, SUM)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("count", [1024, 2048])
def test_bytes_are_those_of_the_formula(size: int, count: int) -> None:
    def program(me: Rank) -> int:
        me.communicator.set_link(LINKS["piggyback"])
        before = me.communicator.bytes_sent
        assert (allreduce(me, np.ones(count, np.float32)) == size).all()
        return me.communicator.bytes_sent - before

    rounds = size.bit_length() - 1
    assert run_all(size, program) == [rounds * HEADER + 4 * count * (size - 1)] * size


@each_way
@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 16])
def test_results_are_exact_for_every_dtype_and_op(size: int, way: str) -> None:
    def program(me: Rank) -> None:
        me.communicator.set_link(LINKS[way])
        for dtype, op in CASES:
            for count in (1, size + 1, LEAST // numpy_dtype(dtype).itemsize + 1):
                everything, expected = example(size, count, dtype, op)
                mine = everything[me.rank].copy()
                for output in (np.empty_like(mine), mine):
                    me.communicator.allreduce(mine, output, op, dtype=dtype)
                    assert same_bits(output, expected), (count, dtype, op)

    run_all(size, program)


@each_way
@pytest.mark.parametrize("count", [4096, 5120, 5121, 25_000])  # around the longest piggybacked
def test_the_longest_piggybacked_vectors_are_right(count: int, way: str) -> None:
    def program(me: Rank) -> None:
        me.communicator.set_link(LINKS[way])
        values = np.arange(count, dtype=np.float32)
        assert (allreduce(me, values * (me.rank + 1)) == values * 10).all()

    run_all(4, program)


@each_way
@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3]])
def test_groups_and_factors(machines: list[int] | None, way: str) -> None:
    def program(me: Rank) -> None:
        me.communicator.set_link(LINKS[way])
        assert (allreduce(me, np.ones(1, np.float32)) == me.size).all()  # some slices are empty
        arrays = [np.full(n, float(me.rank + n), np.float32) for n in (2001, 0, 7, 1)]
        outputs = [np.empty_like(each) for each in arrays]
        how = F32, ronde.Average, None, 0.5, 2.0, None, ""
        me.communicator.allreduce_bucket(arrays, outputs, *how)
        ranks = me.size * (me.size - 1) / 2
        for n, output in zip((2001, 0, 7, 1), outputs, strict=True):
            assert (output == (ranks + me.size * n) * 0.5 / me.size * 2.0).all()

    run_all(len(machines) if machines else 8, program, machines=machines)


@each_way
@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1, 2, 2, 3, 3]])
def test_all_ranks_get_the_same_bits_and_every_time(machines: list[int] | None, way: str) -> None:
    def program(me: Rank) -> set[bytes]:
        me.communicator.set_link(LINKS[way])
        noise = np.random.default_rng(me.rank).normal(size=3001).astype(np.float32)
        return {allreduce(me, noise).tobytes() for _ in range(3)}

    results = run_all(8, program, machines=machines)
    assert all(len(bits) == 1 for bits in results)
    assert len(set.union(*results)) == 1


@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1]])
def test_the_first_vector_that_is_worth_measuring_goes_like_the_next(
    machines: list[int] | None,
) -> None:
    def program(me: Rank) -> None:
        default = me.communicator.link.beta
        noise = np.random.default_rng(me.rank).normal(size=5000).astype(np.float32)
        first = allreduce(me, noise)
        assert me.communicator.link.beta != default
        assert same_bits(first, allreduce(me, noise))

    run_all(4, program, machines=machines)


@each_way
@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1]])
@pytest.mark.parametrize("odd", range(4))
def test_a_rank_that_differs_raises_on_all_and_nothing_is_written(
    odd: int, machines: list[int] | None, way: str
) -> None:
    def program(me: Rank) -> None:
        me.communicator.set_link(LINKS[way])
        other = {
            "another length": lambda: allreduce(me, np.ones(2003, np.float32)),
            "another collective": lambda: me.communicator.barrier(),
            "far longer": lambda: allreduce(me, np.ones(100_000, np.float32)),
        }
        for odd_call in other.values():
            mine = np.full(2001, me.rank, np.float32)
            with pytest.raises(ronde.MismatchError, match=rf"rank {odd}: "):
                if me.rank == odd:
                    odd_call()
                else:
                    allreduce(me, mine, mine)
            assert (mine == me.rank).all()
            assert (allreduce(me, np.ones(2001, np.float32)) == me.size).all()

    run_all(4, program, machines=machines)


@pytest.mark.parametrize("seed", range(5))
def test_delays_and_reordering_change_nothing(seed: int) -> None:
    def program(me: Rank) -> None:
        for way, count in itertools.product(LINKS, (3, 500, 4000)):
            me.communicator.set_link(LINKS[way])
            assert (allreduce(me, np.full(count, me.rank, np.float32)) == 28).all()

    run_all(8, program, faults={"seed": seed, "delay": 0.3})


@pytest.mark.parametrize("dies_after", [0, 1, 3])
def test_a_rank_that_dies_on_the_way_is_noticed_by_all(dies_after: int) -> None:
    def program(me: Rank) -> None:
        me.communicator.set_link(LINKS["piggyback"])
        for _ in range(30):
            allreduce(me, np.ones(1100, np.float32))

    errors = run(4, program, faults={"dies": 2, "dies_after": dies_after})
    assert all(isinstance(error, ronde.RankFailedError) for error in errors), errors


def test_nothing_is_piggybacked_in_deterministic_mode() -> None:
    """There all vectors go by one tree, whatever their length."""

    def program(me: Rank) -> None:
        me.communicator.set_link(LINKS["piggyback"])
        noise = np.random.default_rng(me.rank).normal(size=50_000).astype(np.float32)
        assert same_bits(allreduce(me, noise)[:100], allreduce(me, noise[:100]))

    run_all(8, program, deterministic=True)


def test_a_prediction_holds_what_was_told_of_the_link() -> None:
    link = _core.Link(alpha=10e-6, overhead=1e-6, beta=1e-8, gamma=1e-9)
    assert _core.piggyback_seconds(1000, 4, link) == pytest.approx(20e-6 + 30e-6 + 3e-6)
    assert _core.piggyback_seconds(1000, 6, link) == pytest.approx(30e-6 + 50e-6 + 5e-6)
    for nothing in ((0, 4), (100, 1), (1 << 20, 4), (16_000, 6)):
        assert _core.piggyback_seconds(*nothing, link) == math.inf


@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1, 2, 2, 3, 3]])
def test_a_short_vector_goes_the_same_way_before_and_after_the_link_is_known(
    machines: list[int] | None,
) -> None:
    def program(me: Rank) -> None:
        noise = np.random.default_rng(me.rank).normal(size=1023).astype(np.float32)
        before = [allreduce(me, noise[:count]).tobytes() for count in (2, 100, 500, 1023)]
        default = me.communicator.link.beta
        allreduce(me, np.ones(5000, np.float32))
        assert me.communicator.link.beta != default
        after = [allreduce(me, noise[:count]).tobytes() for count in (2, 100, 500, 1023)]
        assert before == after

    run_all(8, program, machines=machines)


@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1]])
@pytest.mark.parametrize("odd", range(4))
@pytest.mark.parametrize("counts", [(5000, 100), (100, 5000), (5000, 0), (0, 5000)])
def test_a_rank_that_differs_is_found_before_the_link_is_measured(
    counts: tuple[int, int], odd: int, machines: list[int] | None
) -> None:
    """0 stands for a barrier."""

    def call(me: Rank, count: int) -> None:
        if count:
            assert (allreduce(me, np.ones(count, np.float32)) == me.size).all()
        else:
            me.communicator.barrier()

    def program(me: Rank) -> None:
        for _ in range(2):
            with pytest.raises(ronde.MismatchError, match=rf"rank {odd}: "):
                call(me, counts[me.rank == odd])
        for count in counts:
            call(me, count)

    run_all(4, program, machines=machines)


@each_way
@pytest.mark.parametrize("machines", [None, [0, 0, 1, 1]])
def test_without_the_check_results_are_the_same(machines: list[int] | None, way: str) -> None:
    def program(me: Rank) -> None:
        for count in (1, 1000, 5000, 50_000):
            assert (allreduce(me, np.ones(count, np.float32)) == me.size).all()
        me.communicator.set_link(LINKS[way])
        for count in (1, 1000, 5000, 50_000):
            assert (allreduce(me, np.ones(count, np.float32)) == me.size).all()

    run_all(4, program, machines=machines, check=False)
