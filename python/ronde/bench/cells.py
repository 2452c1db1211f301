"""What is measured: collectives, sizes, element types; and what the numbers of a row mean.

A *cell* is one collective at one size, dtype and op; a *job* is a list of cells with the method by
which they are measured; a *row* is what came out for a cell. All of them travel as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["COLLECTIVES", "DTYPES", "OPS", "Cell", "Collective", "Job", "Row"]


@dataclass(frozen=True)
class Collective:
    """As in nccl-tests, the size of a cell is that of the larger of input and output."""

    reduces: bool = False
    rooted: bool = False
    splits: bool = False  # the larger of input and output has a part for each rank
    bus: Callable[[int], float] = lambda ranks: 1.0  # busbw over algbw


def _both_ways(ranks: int) -> float:
    return 2 * (ranks - 1) / ranks


def _one_way(ranks: int) -> float:
    return (ranks - 1) / ranks


COLLECTIVES = {
    "allreduce": Collective(reduces=True, bus=_both_ways),
    "broadcast": Collective(rooted=True),
    "allgather": Collective(splits=True, bus=_one_way),
    "reducescatter": Collective(reduces=True, splits=True, bus=_one_way),
    "alltoall": Collective(splits=True, bus=_one_way),
    "reduce": Collective(reduces=True, rooted=True),
    "gather": Collective(rooted=True, splits=True, bus=_one_way),
    "scatter": Collective(rooted=True, splits=True, bus=_one_way),
    "barrier": Collective(),
    # No collective but the bound: every rank scales a vector of its own in place, all at once.
    "memory": Collective(),
}
OPS = ("sum", "average", "min", "max", "product")

# How the elements are kept here. NumPy has no bfloat16: its bits are.
DTYPES = {
    "bool": np.dtype(np.bool_),
    **{f"{sign}int{n}": np.dtype(f"{sign}int{n}") for sign in ("", "u") for n in (8, 16, 32, 64)},
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
FLOATING = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Cell:
    """`size` is what was asked for, in bytes; what fits whole elements for all ranks is `bytes`."""

    collective: str
    size: int
    dtype: str = "float32"
    op: str = "sum"
    root: int = 0
    in_place: bool = True
    buffers: str = "plain"  # or "shared", or "cuda": in the memory of a GPU
    compression: str = "none"  # of ronde.compression, with parameters: "int8", "topk(0.001)"

    @property
    def kind(self) -> Collective:
        return COLLECTIVES[self.collective]

    def count(self, ranks: int) -> int:
        """Elements: of the vector, or of the part of each rank where the collective splits."""
        if self.collective == "barrier":
            return 0
        parts = ranks if self.kind.splits else 1
        return max(1, self.size // (DTYPES[self.dtype].itemsize * parts))

    def bytes(self, ranks: int) -> int:
        parts = ranks if self.kind.splits else 1
        return self.count(ranks) * parts * DTYPES[self.dtype].itemsize

    @property
    def exact(self) -> Cell:
        """The same without what is Ronde's alone: what all libraries can be compared in."""
        return replace(self, buffers="plain", compression="none")

    def inputs(self, ranks: int) -> int:
        """Elements that a rank passes."""
        cuts = self.collective in ("reducescatter", "alltoall", "scatter")
        return self.count(ranks) * (ranks if cuts else 1)

    def outputs(self, ranks: int) -> int:
        """Elements that a rank gets."""
        joins = self.collective in ("allgather", "alltoall", "gather")
        return self.count(ranks) * (ranks if joins else 1)


@dataclass(frozen=True)
class Job:
    """Cells, and how they are measured."""

    cells: list[Cell]
    seconds: float = 0.2  # of each cell, at least
    iterations: int = 0  # of each cell; 0: by `seconds`
    warmup: int = 10  # calls before, at least
    check: bool = True
    rotate: bool = True
    bound: bool = False  # measure the memory's speed beside each large allreduce
    busy: int = 0  # spinning processes on each host
    rounds: int = 1  # of cells that differ in compression alone, in turns

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Job:
        cells = [Cell(**cell) for cell in fields["cells"]]
        return cls(**{**fields, "cells": cells})


@dataclass(frozen=True)
class Row:
    """What was measured of a cell. Times are microseconds, the greatest over the ranks."""

    cell: Cell
    bytes: int
    count: int
    ranks: int
    iterations: int = 0
    time: float = 0.0  # mean
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    wrong: int | None = None  # elements on all ranks; None: not checked
    bound: float | None = None  # the memory's time for this size, measured right after
    why_not: str = ""  # why there are no numbers
    peer: str = "ronde"
    round: int = 0
    wire: float | None = None  # bytes that a rank sends to other machines, on average
    error: float | None = None  # of a result without feedback, relative to the exact one

    @property
    def label(self) -> str:
        """Of the line in tables and charts that the row belongs to."""
        words = [self.peer]
        if self.cell.buffers != "plain":
            words.append(self.cell.buffers)
        if self.cell.compression != "none":
            words.append(self.cell.compression)
        return " ".join(words)

    @property
    def algbw(self) -> float:
        """GB/s: size over time."""
        return self.bytes / self.time / 1e3 if self.time else 0.0

    @property
    def busbw(self) -> float:
        """GB/s: what each rank has to move at least, over time; comparable between sizes of worlds."""
        return self.algbw * self.cell.kind.bus(self.ranks)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Row:
        """From JSON, where there may be more, like the speeds."""
        known = cls.__dataclass_fields__
        own = {name: value for name, value in fields.items() if name in known}
        return cls(**{**own, "cell": Cell(**fields["cell"])})
