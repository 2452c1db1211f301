"""What algorithms move and cost, against formulas that do not look at their schedules."""

from __future__ import annotations

import pytest
from formulas import PROMISES, core, folded, levels
from ronde import _core
from worlds import (
    ALGORITHMS,
    REDUCING,
    ROOTED,
    Row,
    cases,
    counts_of,
    each_algorithm,
    even,
    roots_of,
    sizes_of,
)


def test_each_algorithm_has_a_formula() -> None:
    assert set(PROMISES) == {(row[0], row[1]) for row in ALGORITHMS}


def divisible(size: int) -> int:
    """A count that divides evenly, by the ranks and by the core of those that fold."""
    return size * core(size)


@each_algorithm()
def test_cost_is_what_the_paper_says(row: Row) -> None:
    collective, name, _, _ = row
    for size in sizes_of(row[3]):
        total = divisible(size)
        promise = PROMISES[collective, name](size)
        cost = _core.cost(collective, name, counts_of(collective, total, size))
        assert cost.steps == promise.steps, f"{size} ranks"
        assert cost.messages == promise.messages, f"{size} ranks"
        assert cost.sent == promise.sent * total, f"{size} ranks"
        assert cost.received == promise.received * total, f"{size} ranks"
        assert cost.reduced == promise.reduced * total, f"{size} ranks"


@each_algorithm()
def test_vectors_of_fewer_elements_than_ranks_need_as_many_steps(row: Row) -> None:
    collective, name, _, _ = row
    for size in sizes_of(row[3]):
        costs = [_core.cost(collective, name, counts_of(collective, n, size)) for n in (1, size)]
        assert costs[0].steps == costs[1].steps, f"{size} ranks"


@each_algorithm()
def test_simulated_traffic_is_what_the_cost_counts(row: Row) -> None:
    collective, name, _, _ = row
    for size in (size for size in sizes_of(row[3]) if size < 20):
        counts = counts_of(collective, 3 * size + 1, size)
        done = _core.simulate(collective, name, counts, size - 1)
        for rank, moved in enumerate(done.ranks):
            cost = _core.cost(collective, name, counts, size - 1, rank=rank)
            assert (moved.sent, moved.received, moved.reduced) == (
                cost.sent,
                cost.received,
                cost.reduced,
            )


@each_algorithm()
def test_seconds_follow_from_what_is_counted(row: Row) -> None:
    collective, name, _, _ = row
    size = 8
    cost = _core.cost(
        collective,
        name,
        counts_of(collective, 64, size),
        item_bytes=2,
        alpha=1.0,
        overhead=1e-3,
        beta=1e-6,
        gamma=1e-12,
    )
    expected = cost.steps + (cost.messages - cost.steps) * 1e-3 + cost.reduced * 2e-12
    if name == "scatter_allgather":  # the root only sends at first, then it does both
        expected += cost.sent * 2e-6
    else:
        expected += max(cost.sent, cost.received) * 2e-6
    assert cost.seconds == pytest.approx(expected, rel=1e-12)


LINK = {"alpha": 1.0, "overhead": 0.25, "beta": 0.5, "gamma": 0.125}  # exact in binary


@each_algorithm()
def test_nobody_is_busier_than_rank_0_or_the_root(row: Row) -> None:
    collective, name, _, _ = row
    for size in sizes_of(row[3]):
        counts = counts_of(collective, divisible(size), size)
        for root in roots_of(collective, size):
            # A tree whose ranges wrap may cost another rank one message more (see cost.h).
            slack = LINK["overhead"] if name in ("tree", "scatter_allgather") and root else 0
            bound = _core.cost(collective, name, counts, root, **LINK).seconds + slack
            for rank in range(size):
                seconds = _core.cost(collective, name, counts, root, rank=rank, **LINK).seconds
                assert seconds <= bound, f"rank {rank} of {size}, root {root}"


def exact_volume(collective: str, name: str, counts: list[int], size: int) -> int:
    """Elements on all links together, whatever the chunks."""
    total = sum(counts)
    if collective == "alltoall":
        return total - sum(counts[rank * size + rank] for rank in range(size))
    if name == "recursive_doubling":
        return total * (core(size) * levels(core(size)) + 2 * (size - core(size)))
    if name == "halving_doubling" and folded(size):
        return total * (2 * (core(size) - 1) + 2 * (size - core(size)))
    if name == "one_shot":
        return total * size * (size - 1)
    if collective == "allreduce":
        return 2 * total * (size - 1)
    return total * (size - 1)  # reduce_scatter, allgather, tree broadcast and reduce


@each_algorithm(REDUCING | {"allgather", "broadcast", "alltoall"})
def test_links_carry_exactly_the_sum_of_the_chunks(row: Row) -> None:
    collective, name, _, _ = row
    for size, total, root in cases(row):
        counts = counts_of(collective, total, size)
        sent = sum(rank.sent for rank in _core.simulate(collective, name, counts, root).ranks)
        expected = exact_volume(collective, name, counts, size)
        if name == "reduce_scatter_gather":
            expected += total - counts[root]
        if name == "scatter_allgather":
            expected += tree_volume(counts, root)
        assert sent == expected, f"{size} ranks, {total} elements, root {root}"


def tree_volume(counts: list[int], root: int) -> int:
    """A chunk crosses as many edges of the tree as its place has ones in binary."""
    size = len(counts)
    return sum(place.bit_count() * counts[(root + place) % size] for place in range(size))


@pytest.mark.parametrize("collective", ["gather", "scatter"])
@pytest.mark.parametrize("name", ["tree", "direct"])
def test_links_to_the_root_carry_exactly_the_sum_of_the_chunks(collective: str, name: str) -> None:
    for size, total, root in cases((collective, name, True, True)):
        counts = even(total, size)
        sent = sum(rank.sent for rank in _core.simulate(collective, name, counts, root).ranks)
        expected = tree_volume(counts, root) if name == "tree" else total - counts[root]
        assert sent == expected, f"{size} ranks, {total} elements, root {root}"


@each_algorithm()
def test_no_rank_moves_more_than_its_chunks_rounded_up(row: Row) -> None:
    collective, name, _, _ = row
    for size, total, root in cases(row):
        if size % 3:
            continue
        counts = counts_of(collective, total, size)
        # With every chunk rounded up to the largest, the formula for the busiest rank is a bound.
        promise = PROMISES[collective, name](size)
        rounded = max(
            -(-total // size) * size,
            -(-total // core(size)) * core(size) if folded(size) else 0,
        )
        bound = max(promise.sent, promise.received) * rounded
        for rank in _core.simulate(collective, name, counts, root).ranks:
            assert rank.sent <= bound, f"{size} ranks, {total} elements, root {root}"
            assert rank.received <= bound, f"{size} ranks, {total} elements, root {root}"


def test_roots_matter_only_to_collectives_that_have_one() -> None:
    for collective, name, _, _ in ALGORITHMS:
        if collective in ROOTED:
            continue
        counts = counts_of(collective, 24, 8)
        ours = _core.schedule(collective, name, 3, counts, root=0).actions
        assert ours == _core.schedule(collective, name, 3, counts, root=5).actions
