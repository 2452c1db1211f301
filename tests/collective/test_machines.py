"""Several machines with several ranks each, as groups of threads that share memory among themselves."""

from __future__ import annotations

import numpy as np
import pytest
import ronde
from ronde import _core
from threads import Rank, run, run_all
from values import CASES, example, same_bits

# The machine of each rank: two and three of them, ranks one after another and in turns.
PLACEMENTS = ([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [2, 0, 1, 1, 2, 0])

# Around the border of what is piggybacked on phase 0 (4096 bytes of all machines), and long vectors.
COUNTS = (0, 1, 5, 128, 129, 1365, 1366, 4097, 100_003)


@pytest.mark.parametrize("machines", PLACEMENTS, ids=str)
@pytest.mark.parametrize("in_place", [False, True], ids=["new_array", "in_place"])
def test_allreduce_is_exact_for_every_dtype_and_op(machines: list[int], in_place: bool) -> None:
    def program(me: Rank) -> None:
        for count in COUNTS:
            for dtype, op in CASES:
                everything, expected = example(me.size, count, dtype, op)
                mine = everything[me.rank].copy()
                output = mine if in_place else np.empty_like(mine)
                me.communicator.allreduce(mine, output, op, dtype=dtype)
                assert same_bits(output, expected), (count, dtype, op)
                if not in_place:
                    assert same_bits(mine, everything[me.rank]), "the input was changed"

    run_all(len(machines), program, machines=machines)


@pytest.mark.parametrize("count", [3, 50_000])
def test_several_arrays_and_factors(count: int) -> None:
    def program(me: Rank) -> None:
        arrays = [np.full(n, float(me.rank + n), np.float32) for n in (count, 0, 7, 1)]
        outputs = [np.empty_like(each) for each in arrays]
        me.communicator.allreduce_bucket(
            arrays, outputs, _core.DType.float32, ronde.Average, None, 0.5, 2.0, None, ""
        )
        for n, output in zip((count, 0, 7, 1), outputs, strict=True):
            assert (output == (6 + 4 * n) * 0.5 / 4.0 * 2.0).all()

    run_all(4, program, machines=[0, 0, 1, 1])


@pytest.mark.parametrize("deterministic", [False, True])
def test_all_ranks_get_the_same_bits(deterministic: bool) -> None:
    def program(me: Rank) -> list[bytes]:
        results = []
        for count in (3, 1000, 30_001):
            values = np.random.default_rng([me.rank, count]).standard_normal(count)
            x = values.astype(np.float32)
            for _ in range(2):
                y = x.copy()
                me.communicator.allreduce(y, y, ronde.Sum)
                results.append(y.tobytes())
        return results

    placement = [0, 0, 0, 1, 1, 1]
    everything = run_all(6, program, machines=placement, deterministic=deterministic)
    assert all(results == everything[0] for results in everything)
    assert everything[0][0::2] == everything[0][1::2]


def test_the_other_collectives_work_beside_it() -> None:
    def program(me: Rank) -> None:
        for _ in range(3):
            x = np.full(1000, me.rank, np.int64)
            me.communicator.broadcast(x, 3)
            assert (x == 3).all()
            data, rows = me.communicator.allgather(x[: me.rank])
            assert rows == list(range(me.size)) and data.nbytes == 8 * sum(rows)
            me.communicator.barrier()
            total = np.array([me.rank])
            me.communicator.allreduce(total, total, ronde.Sum)
            assert total[0] == sum(range(me.size))

    run_all(6, program, machines=[0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("odd", range(4))
@pytest.mark.parametrize("count", [2, 100_000])
def test_a_difference_on_one_machine_raises_on_all(odd: int, count: int) -> None:
    def program(me: Rank) -> None:
        x = np.ones(count + (me.rank == odd), np.float32)
        before = x.copy()
        with pytest.raises(ronde.MismatchError, match=rf"rank {odd}:"):
            me.communicator.allreduce(x, x, ronde.Sum)
        assert same_bits(x, before)
        me.communicator.barrier("goes on")

    results = run(4, program, machines=[0, 0, 1, 1])
    assert results == [None] * 4


def test_machines_with_different_numbers_of_ranks_are_refused() -> None:
    def program(me: Rank) -> None:
        with pytest.raises(ValueError, match="different numbers of ranks"):
            me.communicator.share_memory([0, 0, 1])
        me.communicator.barrier("goes on")

    run_all(3, program)
