"""allreduce, reduce and reduce_scatter: every algorithm, dtype and op, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import ronde
from ronde import _core
from routes import COUNTS, MEMORIES, Route, algorithms, case, worlds
from threads import WORLDS, Rank, run_all
from values import CASES, example, numpy_dtype, same_bits


@pytest.mark.parametrize("in_place", [False, True], ids=["new_array", "in_place"])
@pytest.mark.parametrize(
    ("algorithm", "any_size"), algorithms("allreduce"), ids=lambda value: str(value)
)
def test_allreduce_is_exact_for_every_dtype_and_op(
    algorithm: str, any_size: bool, in_place: bool
) -> None:
    def program(me: Rank) -> None:
        for count in COUNTS:
            for dtype, op in CASES:
                everything, expected = example(me.size, count, dtype, op)
                mine = everything[me.rank].copy()
                output = mine if in_place else np.empty_like(mine)
                me.communicator.allreduce(mine, output, op, dtype=dtype, algorithm=algorithm)
                assert same_bits(output, expected), (me.size, count, dtype, op)
                if not in_place:
                    assert same_bits(mine, everything[me.rank]), "the input was changed"

    for size in worlds(any_size):
        run_all(size, program)


@pytest.mark.parametrize("size", [*WORLDS, 13])
def test_small_allreduces_are_exact_for_every_dtype_and_op(size: int) -> None:
    """Their data goes with phase 0, up to 4 KiB of all ranks together."""

    def program(me: Rank) -> None:
        for dtype, op in CASES:
            most = 4096 // (me.size * numpy_dtype(dtype).itemsize)
            for count in (1, 2, 7, most, most + 1):
                everything, expected = example(me.size, count, dtype, op)
                mine = everything[me.rank].copy()
                me.communicator.allreduce(mine, mine, op, dtype=dtype)
                assert same_bits(mine, expected), (dtype, op, count)

    run_all(size, program)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_small_allreduces_reduce_in_the_order_of_the_ranks(size: int) -> None:
    numbers = np.random.default_rng(5).normal(size=(size, 6)).astype(np.float32)
    expected = numbers[0]
    for row in numbers[1:]:
        expected = expected + row  # float32, from left to right

    def program(me: Rank) -> None:
        inputs = [numbers[me.rank, :2].copy(), numbers[me.rank, 2:].copy()]  # packed and unpacked
        outputs = [np.empty_like(array) for array in inputs]
        how = _core.DType.float32, ronde.Sum, None, 1.0, 2.0, None, ""
        me.communicator.allreduce_bucket(inputs, outputs, *how)
        assert same_bits(np.concatenate(outputs), expected * np.float32(2))

    run_all(size, program)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("in_place", [False, True], ids=["new_array", "in_place"])
def test_allreduce_in_shared_memory_is_exact_for_every_dtype_and_op(
    in_place: bool, memory: str
) -> None:
    route = Route(memory=memory)

    def program(me: Rank) -> None:
        # Around the border of short vectors (4 KiB), and around that of one and of two chunks (256 KiB).
        for count in (*COUNTS, 511, 513, 32768, 32769, 40001):
            for dtype, op in CASES:
                everything, expected = example(me.size, count, dtype, op)
                mine = route.put(me.rank, everything[me.rank].copy())
                output = mine if in_place else route.put(me.rank, np.empty_like(mine))
                me.communicator.allreduce(mine, output, op, dtype=dtype)
                assert same_bits(output, expected), (me.size, count, dtype, op)
                if not in_place:
                    assert same_bits(mine, everything[me.rank]), "the input was changed"

    route.run(program)


@pytest.mark.parametrize("segment_bytes", [1, 8, 24, 1000])
@pytest.mark.parametrize("window", [2, 5, 64])
def test_tiny_segments_take_the_long_paths(segment_bytes: int, window: int) -> None:
    dtype, op, count = _core.DType.float32, ronde.Sum, 257

    def program(me: Rank) -> None:
        everything, expected = example(me.size, count, dtype, op)
        for algorithm, _ in algorithms("allreduce"):
            output = np.empty_like(everything[me.rank])
            me.communicator.allreduce(
                everything[me.rank], output, op, dtype=dtype, algorithm=algorithm
            )
            assert same_bits(output, expected), algorithm

    for size in (2, 3, 7, 8):
        run_all(size, program, segment_bytes=segment_bytes, window=window)


@case("reduce_scatter")
def test_reduce_scatter_gives_each_rank_its_own_chunk(route: Route) -> None:
    dtype, op = _core.DType.float64, ronde.Sum

    def program(me: Rank) -> None:
        for count in route.counts:  # few elements make empty chunks
            everything, expected = example(me.size, count, dtype, op)
            mine = route.put(me.rank, everything[me.rank].copy())
            output = me.communicator.reducescatter(mine, op, algorithm=route.algorithm)
            assert same_bits(output, np.array_split(expected, me.size)[me.rank]), count
            assert same_bits(mine, everything[me.rank]), "the input was changed"

    route.run(program)


@case("reduce")
def test_reduce_gives_the_root_the_result_and_leaves_the_others_alone(route: Route) -> None:
    dtype, op = _core.DType.float16, ronde.Sum

    def program(me: Rank) -> None:
        for count in route.counts:
            for root in {0, me.size // 2, me.size - 1}:
                everything, expected = example(me.size, count, dtype, op)
                mine = route.put(me.rank, everything[me.rank].copy())
                output = me.communicator.reduce(mine, root, op, algorithm=route.algorithm)
                assert (output is None) == (me.rank != root)
                assert same_bits(mine, everything[me.rank]), "the input was changed"
                if output is not None:
                    assert same_bits(output, expected), (me.size, count, root)

    route.run(program)


@pytest.mark.parametrize("shared", [False, True], ids=["messages", "memory"])
def test_several_arrays_are_reduced_as_one(shared: bool) -> None:
    dtype, op = _core.DType.int32, ronde.Sum
    shapes = [(3, 4), (), (0,), (5,), (1, 1, 7)]

    def program(me: Rank) -> None:
        arrays = [np.full(shape, me.rank + i, np.int32) for i, shape in enumerate(shapes)]
        outputs = [np.empty_like(a) for a in arrays]
        me.communicator.allreduce_bucket(arrays, outputs, dtype, op, None, 1.0, 1.0, None, "")
        total = me.size * (me.size - 1) // 2
        for i, output in enumerate(outputs):
            assert (output == total + me.size * i).all()

    for size in WORLDS:
        run_all(size, program, shared=shared)


@pytest.mark.parametrize("shared", [False, True], ids=["messages", "memory"])
@pytest.mark.parametrize("count", [10, 100_000])
def test_factors_apply_before_and_after(shared: bool, count: int) -> None:
    def program(me: Rank) -> None:
        mine = np.full(count, float(me.rank + 1), np.float32)
        output = me.communicator.allreduce(mine, None, ronde.Average, None, 0.5, 4.0)
        assert (output == (me.size + 1) / 2 * 0.5 * 4.0).all()

    for size in WORLDS:
        run_all(size, program, shared=shared)


FLOATS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # bits of the significand


@pytest.mark.parametrize("algorithm", [name for name, _ in algorithms("allreduce")])
@pytest.mark.parametrize("dtype_name", list(FLOATS))
def test_sums_keep_the_documented_error_bound_and_all_ranks_get_the_same_bits(
    algorithm: str, dtype_name: str
) -> None:
    dtype = _core.DType.__members__[dtype_name]
    count = 3000

    def program(me: Rank) -> np.ndarray:
        results = []
        for _ in range(2):  # the same call gives the same bits again
            mine = noise(me.rank, count, dtype)
            output = np.empty_like(mine)
            me.communicator.allreduce(mine, output, ronde.Sum, dtype=dtype, algorithm=algorithm)
            results.append(output)
        assert same_bits(*results)
        return results[0]

    for size in (2, 3, 7, 8):
        results = run_all(size, program)
        assert all(same_bits(results[0], other) for other in results[1:])
        terms = np.stack([noise(rank, count, dtype).astype(np.longdouble) for rank in range(size)])
        unit = 2.0 ** -FLOATS[dtype_name]  # half a unit in the last place, relative
        bound = (size - 1) * unit * 1.01 * np.abs(terms).sum(axis=0)
        error = np.abs(results[0].astype(np.longdouble) - terms.sum(axis=0))
        assert (error <= bound).all(), (size, (error / bound).max())


def noise(rank: int, count: int, dtype: _core.DType) -> np.ndarray:
    return np.random.default_rng(rank).normal(size=count).astype(numpy_dtype(dtype))


@pytest.mark.parametrize("shared", [False, True], ids=["messages", "memory"])
@pytest.mark.parametrize("count", [101, 50_000])
def test_deterministic_mode_gives_the_same_bits_at_any_place_and_in_any_company(
    shared: bool, count: int
) -> None:

    def program(me: Rank) -> None:
        values = noise(me.rank, count, _core.DType.float32)
        alone = reduce_group(me, [values])[0]
        shifted = reduce_group(me, [np.concatenate([noise(9, 57, _core.DType.float32), values])])[0]
        fused = reduce_group(me, [noise(8, 1000, _core.DType.float32), values, values[:5]])
        assert same_bits(alone, shifted[57:])
        assert same_bits(alone, fused[1])
        assert same_bits(alone[:5], fused[2])

    for size in WORLDS:
        run_all(size, program, deterministic=True, shared=shared)


def reduce_group(me: Rank, arrays: list[np.ndarray]) -> list[np.ndarray]:
    outputs = [np.empty_like(a) for a in arrays]
    how = _core.DType.float32, ronde.Sum, None, 1.0, 1.0, None, ""
    me.communicator.allreduce_bucket(arrays, outputs, *how)
    return outputs
