"""Contents of the buffers that make every result exactly predictable.

Elements are small whole numbers: however a sum of them is ordered, no addition rounds, in none of the
element types. So a result is right if and only if all its bits are, and wrong elements can be counted.
The numbers repeat after a prime number of elements, which no chunk is a multiple of: parts that
have changed places are seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .cells import DTYPES, FLOATING, Cell

__all__ = ["count_wrong", "expected", "idle", "pattern", "repeated"]

PERIOD = 4093

# Whole numbers up to here are exact.
_EXACT = {"float16": 1 << 11, "bfloat16": 1 << 8, "int8": 127, "uint8": 255}
_EXACT_ELSEWHERE = 1 << 15

Array = Any  # numpy.ndarray; its element types are not known before the run


def pattern(cell: Cell, ranks: int, rank: int) -> Array:
    """The numbers of a rank, over one period, as float64."""
    position = np.arange(PERIOD)
    turn = (position + rank) % max(ranks, 3)
    if cell.dtype == "bool":
        return (turn == 0).astype(float)
    if cell.op == "product" and cell.kind.reduces:
        return np.where(turn == 0, 2.0, 1.0)  # a power of two is exact too
    limit = _EXACT.get(cell.dtype, _EXACT_ELSEWHERE)
    if not cell.kind.reduces:
        return (_scrambled(position) + 31 * rank) % (limit + 1)
    # The same in every rank, and so that an average is exact, a part that adds up to the same
    # everywhere; where the type has no room for that, only the first.
    turn = (position + rank) % ranks
    if ranks * (ranks - 1) // 2 > limit // 2:
        turn = np.zeros_like(position)
    room = limit // ranks - (ranks - 1 if turn.any() else 0)
    return _scrambled(position) % (max(room, 0) + 1) + turn


def _scrambled(position: Array) -> Array:
    return (position * 1103515245 + 12345) >> 8


def expected(cell: Cell, ranks: int, rank: int) -> list[tuple[Array, int, int]]:
    """What a rank must get: pieces of (numbers over one period, first position in it, elements).

    Empty where this rank gets nothing.
    """
    count = cell.count(ranks)

    def of(source: int) -> Array:
        return stored(pattern(cell, ranks, source), cell.dtype)

    if cell.kind.rooted and cell.collective in ("reduce", "gather") and rank != cell.root:
        return []
    if cell.collective in ("allreduce", "reduce"):
        return [(_reduced(cell, ranks), 0, count)]
    if cell.collective == "reducescatter":
        return [(_reduced(cell, ranks), rank * count, count)]
    if cell.collective == "broadcast":
        return [(of(cell.root), 0, count)]
    if cell.collective == "scatter":
        return [(of(cell.root), rank * count, count)]
    if cell.collective in ("allgather", "gather"):
        return [(of(source), 0, count) for source in range(ranks)]
    if cell.collective == "alltoall":
        return [(of(source), rank * count, count) for source in range(ranks)]
    return []


def _reduced(cell: Cell, ranks: int) -> Array:
    combine = {"min": np.minimum, "max": np.maximum, "product": np.multiply}.get(cell.op, np.add)
    total = pattern(cell, ranks, 0)
    for rank in range(1, ranks):
        total = combine(total, pattern(cell, ranks, rank))
    if cell.op == "average":
        total = total / ranks
    if cell.dtype == "bool":
        return total != 0
    if cell.dtype in FLOATING:
        return stored(total, cell.dtype)
    return total.astype(np.int64).astype(DTYPES[cell.dtype])  # integers wrap


def stored(numbers: Array, dtype: str) -> Array:
    """Numbers that the element type represents, as it keeps them."""
    if dtype == "bfloat16":
        return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(DTYPES[dtype])


def repeated(table: Array, count: int) -> Array:
    """The table, again and again, in so many elements."""
    return np.resize(table, count)


def idle(cell: Cell, ranks: int, rank: int) -> Array:
    """Contents that stay what they are however often they are reduced in place."""
    if cell.collective == "memory":
        return stored(np.zeros(PERIOD), cell.dtype)
    if not cell.kind.reduces or cell.op in ("min", "max", "average"):
        return stored(pattern(cell, ranks, rank), cell.dtype)
    return stored(np.full(PERIOD, 1.0 if cell.op == "product" else 0.0), cell.dtype)


def count_wrong(array: Array, pieces: list[tuple[Array, int, int]]) -> int:
    """Elements of the array that are not as `expected` says; missing ones count too."""
    wanted = sum(count for _, _, count in pieces)
    if array is None or array.size != wanted:
        return max(wanted, 0 if array is None else array.size)
    return sum(
        int(np.count_nonzero(part != right))
        for part, right in _side_by_side(array.reshape(-1), pieces)
    )


def _side_by_side(array: Array, pieces: list[tuple[Array, int, int]]) -> Iterator[tuple[Any, Any]]:
    start = 0
    for table, first, count in pieces:
        turned = np.roll(table, -(first % PERIOD))
        piece = array[start : start + count]
        whole = count // PERIOD * PERIOD
        yield piece[:whole].reshape(-1, PERIOD), turned
        yield piece[whole:], turned[: count - whole]
        start += count
