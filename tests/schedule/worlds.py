"""The worlds that the tests of schedules go through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ronde import _core

Row = tuple[str, str, bool, bool]  # (collective, name, position_independent, any_size)

ALGORITHMS = _core.algorithms()
SIZES = range(1, 65)
ROOTED = {"broadcast", "reduce", "gather", "scatter"}
REDUCING = {"allreduce", "reducescatter", "reduce"}


def even(total: int, size: int) -> list[int]:
    return [total // size + (rank < total % size) for rank in range(size)]


def counts_of(collective: str, total: int, size: int) -> list[int]:
    """One count for each rank, or for alltoall a matrix in which each rank sends `total`."""
    return even(total, size) * (size if collective == "alltoall" else 1)


def sizes_of(any_size: bool) -> list[int]:
    return [size for size in SIZES if any_size or size & (size - 1) == 0]


def roots_of(collective: str, size: int) -> list[int]:
    return sorted({0, size // 2, size - 1}) if collective in ROOTED else [0]


def totals(size: int) -> list[int]:
    return sorted({0, 1, 3, size - 1, size, 1000})


def each_algorithm(only: set[str] | None = None) -> pytest.MarkDecorator:
    rows = [row for row in ALGORITHMS if only is None or row[0] in only]
    return pytest.mark.parametrize("row", rows, ids=[f"{row[1]}_{row[0]}" for row in rows])


def cases(row: Row) -> Iterator[tuple[int, int, int]]:
    """(size, total, root)"""
    for size in sizes_of(row[3]):
        for total in totals(size):
            for root in roots_of(row[0], size):
                yield size, total, root
