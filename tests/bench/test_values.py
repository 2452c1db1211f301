"""The contents of the buffers: exact in every order of a sum, and no wrong element goes unseen."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from ronde import _core
from ronde.bench import values
from ronde.bench.cells import COLLECTIVES, DTYPES, FLOATING, OPS, Cell
from values import reduced as exactly_reduced

RANKS = (1, 2, 3, 4, 7, 8, 16)
COUNTED = [name for name in COLLECTIVES if name not in ("barrier", "memory")]


def inputs(cell: Cell, ranks: int) -> list[Any]:
    """What all ranks pass."""
    tables = [values.stored(values.pattern(cell, ranks, rank), cell.dtype) for rank in range(ranks)]
    return [values.repeated(table, cell.inputs(ranks)) for table in tables]


def typed(array: Any, dtype: str) -> Any:
    return array.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else array


def reduced(cell: Cell, arrays: list[Any]) -> Any:
    op = _core.Op.__members__["Sum" if cell.op == "average" else cell.op.title()]
    total = exactly_reduced([typed(array, cell.dtype) for array in arrays], op)
    if cell.op == "average":
        total = total / np.asarray(len(arrays), total.dtype)
    return total.view(DTYPES[cell.dtype])


def result(cell: Cell, ranks: int, rank: int) -> Any:
    """What the collective means, said in NumPy."""
    arrays = inputs(cell, ranks)
    count = cell.count(ranks)
    mine = slice(rank * count, (rank + 1) * count)
    if cell.collective in ("reduce", "gather") and rank != cell.root:
        return None
    if cell.collective in ("allreduce", "reduce"):
        return reduced(cell, arrays)
    if cell.collective == "reducescatter":
        return reduced(cell, arrays)[mine]
    if cell.collective == "broadcast":
        return arrays[cell.root]
    if cell.collective == "scatter":
        return arrays[cell.root][mine]
    if cell.collective in ("allgather", "gather"):
        return np.concatenate(arrays)
    return np.concatenate([array[mine] for array in arrays])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("collective", COUNTED)
def test_right_results_have_no_wrong_element(collective: str, dtype: str) -> None:
    ops = [op for op in OPS if op != "average" or dtype in FLOATING]
    for ranks, op, size in product(
        RANKS, ops if COLLECTIVES[collective].reduces else ["sum"], (8, 50_000)
    ):
        cell = Cell(collective, size, dtype, op, root=ranks - 1)
        for rank in {0, ranks - 1}:
            got = result(cell, ranks, rank)
            pieces = values.expected(cell, ranks, rank)
            assert sum(count for _, _, count in pieces) == (0 if got is None else got.size)
            assert values.count_wrong(got, pieces) == 0, (ranks, op, size, rank)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool"])
@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_no_order_of_a_sum_rounds(dtype: str, ranks: int) -> None:
    cell = Cell("allreduce", 20_000, dtype)
    arrays = inputs(cell, ranks)
    order = np.random.default_rng(0).permutation(ranks)
    for turned in (arrays[::-1], [arrays[rank] for rank in order]):
        assert values.count_wrong(reduced(cell, turned), values.expected(cell, ranks, 0)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_wrong_element_is_counted(dtype: str) -> None:
    cell = Cell("allreduce", 100_000, dtype)
    got = result(cell, 4, 0).copy()
    for index in (0, 4092, 4093, got.size - 1):
        got[index] = not got[index]
    assert values.count_wrong(got, values.expected(cell, 4, 0)) == 4


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "alltoall"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_chunks_that_have_changed_places_are_seen(collective: str, dtype: str) -> None:
    cell = Cell(collective, 1 << 16, dtype)
    got = result(cell, 4, 1).copy()
    for chunk in (64, 1024, got.size // 4):
        parts = got.reshape(-1, chunk)[[1, 0]].reshape(-1)
        swapped = np.concatenate([parts, got[2 * chunk :]])
        assert values.count_wrong(swapped, values.expected(cell, 4, 1)) > chunk


def test_one_contribution_too_few_or_too_many_is_seen() -> None:
    cell = Cell("allreduce", 1 << 16)
    arrays = inputs(cell, 4)
    for wrong in (arrays[:3], [*arrays, arrays[2]], [arrays[0], *arrays[:3]]):
        assert values.count_wrong(reduced(cell, wrong), values.expected(cell, 4, 0)) > 0


def test_a_result_of_another_length_is_wrong_altogether() -> None:
    cell = Cell("allreduce", 400)
    pieces = values.expected(cell, 2, 0)
    assert values.count_wrong(None, pieces) == 100
    assert values.count_wrong(np.zeros(120, np.float32), pieces) == 120


@pytest.mark.parametrize(
    "op, dtype",
    [
        *product(OPS, ["float16", "bfloat16", "float32"]),
        *product(("sum", "max"), ["int8", "int32"]),
    ],
)
def test_idle_contents_stay_when_they_are_reduced_again_and_again(op: str, dtype: str) -> None:
    cell = Cell("allreduce", 10_000, dtype, op)
    arrays = [values.repeated(values.idle(cell, 4, rank), cell.inputs(4)) for rank in range(4)]
    once = reduced(cell, arrays)
    assert (reduced(cell, [once] * 4) == once).all()
