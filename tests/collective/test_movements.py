"""broadcast, allgather, gather, scatter and alltoall: every algorithm, even and uneven."""

from __future__ import annotations

import numpy as np
from routes import Route, case
from threads import Rank, run_all
from values import same_bits


def roots(size: int) -> set[int]:
    return {0, size // 2, size - 1}


def rows_of(rank: int, count: int) -> np.ndarray:
    """A contribution whose length and content tell its rank."""
    rows = (rank * count) // 3 if rank % 2 else count
    return np.arange(rows * 3, dtype=np.int64).reshape(rows, 3) + 1000 * rank


@case("broadcast")
def test_broadcast_gives_all_ranks_the_data_of_the_root(route: Route) -> None:
    def program(me: Rank) -> None:
        for count in route.counts:
            for root in roots(me.size):
                data = route.put(me.rank, np.arange(count, dtype=np.float64) + 10 * me.rank)
                me.communicator.broadcast(data, root, algorithm=route.algorithm)
                assert (data == np.arange(count) + 10 * root).all()

    route.run(program)


@case("allgather")
def test_allgather_joins_contributions_of_any_length(route: Route) -> None:
    def program(me: Rank) -> None:
        for count in route.counts:
            mine = route.put(me.rank, rows_of(me.rank, count))
            data, rows = me.communicator.allgather(mine, algorithm=route.algorithm)
            everything = [rows_of(rank, count) for rank in range(me.size)]
            assert rows == [len(each) for each in everything]
            assert same_bits(data, np.concatenate(everything))

    route.run(program)


@case("gather")
def test_gather_joins_contributions_at_the_root_alone(route: Route) -> None:
    def program(me: Rank) -> None:
        for count in route.counts:
            for root in roots(me.size):
                mine = route.put(me.rank, rows_of(me.rank, count))
                gathered = me.communicator.gather(mine, root, algorithm=route.algorithm)
                everything = [rows_of(rank, count) for rank in range(me.size)]
                if me.rank == root:
                    data, rows = gathered
                    assert rows == [len(each) for each in everything]
                    assert same_bits(data, np.concatenate(everything))
                else:
                    assert gathered is None

    route.run(program)


@case("scatter")
def test_scatter_cuts_the_data_of_the_root(route: Route) -> None:
    def program(me: Rank) -> None:
        for count in route.counts:
            for root in roots(me.size):
                parts = [rows_of(rank, count) for rank in range(me.size)]
                rows = [len(part) for part in parts]
                everything = (route.put(me.rank, np.concatenate(parts)), rows, 24, [7, -1])
                arguments = everything if me.rank == root else (None, [], 0, [])
                n, data, header = me.communicator.scatter(
                    *arguments, root, algorithm=route.algorithm
                )
                assert header == [7, -1]
                assert n == rows[me.rank]
                assert (data.view(np.int64).reshape(-1, 3) == parts[me.rank]).all()

    route.run(program)


@case("alltoall")
def test_alltoall_sends_every_pair_its_part(route: Route) -> None:
    def part(source: int, target: int, count: int) -> np.ndarray:
        length = 0 if (source + target) % 3 == 0 else count + source
        return np.full(length, 100 * source + target, dtype=np.int32)

    def program(me: Rank) -> None:
        for count in route.counts:
            parts = [part(me.rank, target, count) for target in range(me.size)]
            mine = route.put(me.rank, np.concatenate(parts))
            lengths = [len(p) for p in parts]
            data, rows = me.communicator.alltoall(mine, lengths, algorithm=route.algorithm)
            expected = [part(source, me.rank, count) for source in range(me.size)]
            assert rows == [len(each) for each in expected]
            assert same_bits(data, np.concatenate(expected))

    route.run(program)


def test_rows_without_bytes_are_counted() -> None:
    def program(me: Rank) -> None:
        data, rows = me.communicator.allgather(np.empty((me.rank + 1, 0), np.uint8))
        assert rows == [rank + 1 for rank in range(me.size)]
        assert data.shape == (sum(rows), 0)

    run_all(4, program)
