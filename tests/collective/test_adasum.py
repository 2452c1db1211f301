"""Adasum against its definition in double precision: routes, dtypes, world sizes, groups of arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import ronde
from adasum_reference import adasum
from ronde import _core
from routes import MEMORIES, Route
from threads import Rank, run, run_all
from values import numpy_dtype, same_bits

WORLDS = (1, 2, 3, 4, 5, 7, 8)
COUNTS = (0, 1, 10, 10_000)
DTYPES = {
    name: _core.DType.__members__[name] for name in ("float16", "bfloat16", "float32", "float64")
}
BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # of the significand
ROUTES: dict[str, dict[str, Any]] = {"messages": {}, "memory": {"shared": True}}
on_routes = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)


def gradient(rank: int, count: int, dtype: _core.DType = DTYPES["float32"]) -> Any:
    """Those of all ranks have something in common, as gradients do."""
    common = np.random.default_rng(count).standard_normal(count)
    own = np.random.default_rng([rank, count]).standard_normal(count)
    return ((common + own) * (1 + rank % 3)).astype(numpy_dtype(dtype))


@functools.lru_cache(maxsize=100)
def example(size: int, count: int, dtype: _core.DType) -> tuple[list[Any], np.ndarray]:
    gradients = [gradient(rank, count, dtype) for rank in range(size)]
    return gradients, adasum([each.astype(np.float64) for each in gradients])


def assert_close(result: Any, expected: np.ndarray, bits: int, context: Any = "") -> None:
    """Within a few roundings of the greatest element: there are some in each level."""
    error = np.abs(result.astype(np.float64) - expected).max(initial=0.0)
    assert error <= 16 * 2.0**-bits * np.abs(expected).max(initial=1.0), (error, context)


@on_routes
@pytest.mark.parametrize("dtype_name", DTYPES)
@pytest.mark.parametrize("in_place", [False, True], ids=["new_array", "in_place"])
def test_allreduce_is_the_formula(route: dict[str, Any], dtype_name: str, in_place: bool) -> None:
    dtype = DTYPES[dtype_name]

    def program(me: Rank) -> list[bytes]:
        results = []
        for count in COUNTS:
            everything, expected = example(me.size, count, dtype)
            mine = everything[me.rank].copy()
            output = mine if in_place else np.empty_like(mine)
            me.communicator.allreduce(mine, output, ronde.Adasum, dtype=dtype)
            assert_close(output, expected, BITS[dtype_name], (me.size, count))
            if not in_place:
                assert same_bits(mine, everything[me.rank]), "the input was changed"
            results.append(output.tobytes())
        return results

    for size in WORLDS:
        results = run_all(size, program, **route)
        assert all(each == results[0] for each in results), "ranks have different bits"


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("in_place", [False, True], ids=["new_array", "in_place"])
def test_memory_that_others_can_reach(memory: str, in_place: bool) -> None:
    route = Route(memory=memory)

    def program(me: Rank) -> None:
        for count in (1000, 300_001):  # some chunks of each stage
            everything, expected = example(me.size, count, DTYPES["float32"])
            mine = route.put(me.rank, everything[me.rank].copy())
            output = mine if in_place else route.put(me.rank, np.empty_like(mine))
            me.communicator.allreduce(mine, output, ronde.Adasum)
            assert_close(output, expected, 24)
            if not in_place:
                assert same_bits(mine, everything[me.rank]), "the input was changed"

    for size in (2, 3, 8):
        run_all(size, program, shared=True)


def group(me: Rank, arrays: list[Any], *factors: float) -> list[Any]:
    outputs = [np.empty_like(each) for each in arrays]
    how = _core.DType.float32, ronde.Adasum, None, *(factors or (1.0, 1.0)), None, ""
    me.communicator.allreduce_bucket(arrays, outputs, *how)
    return outputs


@pytest.mark.parametrize(
    "route", [*ROUTES.values(), {"deterministic": True}], ids=[*ROUTES, "deterministic"]
)
def test_arrays_of_a_group_have_coefficients_of_their_own(route: dict[str, Any]) -> None:
    counts = (7, 0, 10_000, 1, 640)

    def program(me: Rank) -> None:
        arrays = [gradient(me.rank, count) * np.float32(10**i) for i, count in enumerate(counts)]
        for i, output in enumerate(group(me, arrays)):
            everything = [gradient(r, counts[i]) * np.float32(10**i) for r in range(me.size)]
            assert_close(output, adasum([each.astype(np.float64) for each in everything]), 24, i)
            # What it is fused with makes no difference at all, nor does the place where it lies.
            if "deterministic" in route or "shared" in route:
                assert same_bits(output, group(me, [arrays[i]])[0])

    for size in WORLDS:
        run_all(size, program, **route)


@on_routes
def test_orthogonal_gradients_are_added(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        mine = np.zeros(1000, np.float32)
        mine[me.rank :: me.size] = me.rank + 1
        output = me.communicator.allreduce(mine, None, ronde.Adasum)
        assert (output == np.resize(np.arange(1, me.size + 1), 1000)).all()

    for size in WORLDS:
        run_all(size, program, **route)


@on_routes
def test_equal_gradients_are_averaged(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        mine = np.arange(-500, 500, dtype=np.float32)
        output = me.communicator.allreduce(mine, None, ronde.Adasum)
        assert same_bits(output, mine)

    for size in WORLDS:
        run_all(size, program, **route)


@on_routes
def test_parallel_gradients_of_different_norms(route: dict[str, Any]) -> None:
    """a and 10 a: (1 - 10/2) a + (1 - 1/20) 10 a = 5.5 a, the mean of both."""

    def program(me: Rank) -> None:
        mine = np.arange(1, 101, dtype=np.float64) * (10 if me.rank else 1)
        output = me.communicator.allreduce(mine, None, ronde.Adasum)
        assert np.allclose(output, 5.5 * np.arange(1, 101), rtol=1e-14)

    run_all(2, program, **route)


@on_routes
def test_zeros_and_next_to_nothing_are_neutral(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        values = gradient(0, 100)
        for tiny in (0.0, 1e-44):
            mine = values if me.rank == 1 else np.full(100, tiny, np.float32)
            assert same_bits(me.communicator.allreduce(mine, None, ronde.Adasum), values)
        nothing = me.communicator.allreduce(np.zeros(100, np.float32), None, ronde.Adasum)
        assert not nothing.any()

    run_all(3, program, **route)


@on_routes
def test_what_is_not_finite_is_added(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        mine = np.full(100, 2.0, np.float32)
        if me.rank == 1:
            mine[3], mine[50] = np.inf, np.nan
        whole = np.full(100, 4.0, np.float32)
        output, other = group(me, [mine, whole])
        assert output[3] == np.inf and np.isnan(output[50])
        output[[3, 50]] = 4.0
        assert (output == 4.0).all(), "elements that are finite become the sum"
        assert (other == 4.0).all(), "another array of the group is merged as ever"
        large = np.full(100, 1e200)  # whose squares are beyond float64
        assert (me.communicator.allreduce(large, None, ronde.Adasum) == 2e200).all()

    run_all(2, program, **route)


@on_routes
@pytest.mark.parametrize("dtype_name", ["bfloat16", "float32"])
def test_factors_apply_before_and_after(route: dict[str, Any], dtype_name: str) -> None:
    dtype = DTYPES[dtype_name]

    def program(me: Rank) -> None:
        everything, expected = example(me.size, 1000, dtype)
        factors = 0.5, 8.0
        output = me.communicator.allreduce(
            everything[me.rank], None, ronde.Adasum, None, *factors, dtype=dtype
        )
        assert_close(output, 4.0 * expected, BITS[dtype_name])

    for size in (1, 3, 4):
        run_all(size, program, **route)


@pytest.mark.parametrize("segment_bytes", [8, 24, 1000])
def test_segments_change_no_bit(segment_bytes: int) -> None:
    def program(me: Rank) -> bytes:
        mine = gradient(me.rank, 2001)
        return me.communicator.allreduce(mine, None, ronde.Adasum).tobytes()

    for size in (2, 5, 8):
        (expected, *_) = run_all(size, program, deterministic=True)
        cut = run_all(size, program, deterministic=True, segment_bytes=segment_bytes, window=2)
        assert cut == [expected] * size


@pytest.mark.parametrize("machines", [[0, 0, 1, 1], [0, 1, 0, 1], [2, 0, 1, 1, 2, 0]], ids=str)
@pytest.mark.parametrize("dtype_name", DTYPES)
def test_ranks_of_a_machine_average_before(machines: list[int], dtype_name: str) -> None:
    dtype = DTYPES[dtype_name]
    names = sorted(set(machines))

    def expected_of(everything: list[Any]) -> np.ndarray:
        means = [
            np.mean(
                [
                    x.astype(np.float64)
                    for x, m in zip(everything, machines, strict=True)
                    if m == name
                ],
                axis=0,
            )
            for name in names
        ]
        return adasum(means)

    def program(me: Rank) -> list[bytes]:
        results = []
        for count in (0, 1, 5, 1000, 30_001):
            everything = [gradient(rank, count, dtype) for rank in range(me.size)]
            mine = everything[me.rank].copy()
            me.communicator.allreduce(mine, mine, ronde.Adasum, None, 0.5, 4.0, dtype=dtype)
            assert_close(mine, 2.0 * expected_of(everything), BITS[dtype_name], count)
            results.append(mine.tobytes())
        if dtype_name == "float32":
            counts = (3, 0, 2000, 11)
            outputs = group(me, [gradient(me.rank, count) for count in counts])
            for count, output in zip(counts, outputs, strict=True):
                everything = [gradient(rank, count) for rank in range(me.size)]
                assert_close(output, expected_of(everything), 24, counts)
                results.append(output.tobytes())
        return results

    results = run_all(len(machines), program, machines=machines)
    assert all(each == results[0] for each in results), "ranks have different bits"


@pytest.mark.parametrize(
    "route", [*ROUTES.values(), {"machines": [0, 0, 1, 1]}], ids=[*ROUTES, "machines"]
)
@pytest.mark.parametrize("count", [2, 100_000])
def test_another_call_raises_on_all_ranks_and_changes_nothing(
    route: dict[str, Any], count: int
) -> None:
    def program(me: Rank) -> None:
        mine = np.ones(count, np.float32)
        op = ronde.Sum if me.rank == 2 else ronde.Adasum
        with pytest.raises(ronde.MismatchError, match="op=adasum"):
            me.communicator.allreduce(mine, mine, op)
        assert (mine == 1).all()
        me.communicator.barrier("goes on")

    assert run(4, program, **route) == [None] * 4


def test_what_cannot_be_done_is_refused_at_the_call() -> None:
    def program(me: Rank) -> None:
        x = np.ones(4, np.float32)
        with pytest.raises(ValueError, match=r"reduce cannot do op=ronde\.Adasum"):
            me.communicator.reduce(x, 0, ronde.Adasum)
        with pytest.raises(ValueError, match=r"reducescatter cannot do op=ronde\.Adasum"):
            me.communicator.reducescatter(x, ronde.Adasum)
        with pytest.raises(TypeError, match="Adasum of int32 would have to be rounded"):
            me.communicator.allreduce(np.ones(4, np.int32), None, ronde.Adasum)
        me.communicator.barrier("goes on")

    run_all(2, program)
