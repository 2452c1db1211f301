"""Every algorithm in every world size, run without a process: it ends, and it is right."""

from __future__ import annotations

import random

import pytest
from ronde import _core
from worlds import REDUCING, SIZES, Row, cases, counts_of, each_algorithm, even, roots_of, sizes_of


@each_algorithm()
def test_result_is_right_and_looking_at_two_actions_is_enough(row: Row) -> None:
    collective, name, position_independent, _ = row
    for size, total, root in cases(row):
        done = _core.simulate(collective, name, counts_of(collective, total, size), root)
        case = f"{size} ranks, {total} elements, root {root}"
        assert not done.error, f"{case}: {done.error}"
        assert done.same_bits, case
        assert done.position_independent or not position_independent, case


@each_algorithm()
def test_result_is_right_when_many_actions_run_at_once(row: Row) -> None:
    collective, name, _, _ = row
    for size in sizes_of(row[3])[::3]:
        for total in (size - 1, 200):
            for root in roots_of(collective, size):
                counts = counts_of(collective, total, size)
                done = _core.simulate(collective, name, counts, root, window=16)
                assert not done.error, f"{size} ranks, {total} elements: {done.error}"
                assert done.same_bits


@each_algorithm()
def test_result_is_right_for_uneven_chunks_of_which_some_are_empty(row: Row) -> None:
    collective, name, position_independent, _ = row
    pick = random.Random(f"{collective} {name}")
    for size in sizes_of(row[3]):
        number = size * size if collective == "alltoall" else size
        counts = [pick.choice((0, 0, 1, 2, 7)) for _ in range(number)]
        done = _core.simulate(collective, name, counts, pick.randrange(size))
        assert not done.error, f"{size} ranks, counts {counts}: {done.error}"
        assert done.same_bits
        assert done.position_independent or not position_independent


@each_algorithm(REDUCING)
def test_table_tells_the_truth_about_position_independence(row: Row) -> None:
    collective, name, position_independent, _ = row
    done = _core.simulate(collective, name, even(64, 8))
    assert done.position_independent == position_independent


@pytest.mark.parametrize(
    "one, other", [("halving_doubling", "recursive_doubling"), ("direct", "one_shot")]
)
def test_choosing_between_these_two_by_size_does_not_change_a_bit(one: str, other: str) -> None:
    for size in SIZES:
        trees = {_core.simulate("allreduce", name, even(130, size)).tree for name in (one, other)}
        assert len(trees) == 1, f"{size} ranks"


def test_different_orders_of_operands_are_told_apart() -> None:
    assert (
        _core.simulate("allreduce", "direct", even(8, 8)).tree
        != _core.simulate("allreduce", "halving_doubling", even(8, 8)).tree
    )


def test_rings_deadlock_when_only_one_action_is_looked_at() -> None:
    done = _core.simulate("allreduce", "ring", even(8, 4), window=1)
    assert "rank 0, step 0: waits for rank 1 forever" in done.error
    assert not done.same_bits


def test_trees_need_to_look_at_one_action_only() -> None:
    assert not _core.simulate("broadcast", "tree", even(8, 13), window=1).error


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (("alltogether", "ring", [1, 1]), "no collective is called 'alltogether'; there are allr"),
        (("reduce", "ring", [1, 1]), "reduce has no algorithm called 'ring'; there are tree, redu"),
        (("allgather", "halving_doubling", [1] * 6), "halving_doubling needs a power of two"),
        (("broadcast", "tree", [1, 1], 2), "root 2 is outside a world of 2"),
        (("allreduce", "ring", []), "at least one rank"),
        (("alltoall", "direct", [1, 2, 3]), "a square matrix of counts, not 3"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[object, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _core.simulate(*arguments)
