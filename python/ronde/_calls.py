"""What all collectives share: whom a call is made with, what it is called, and what outlives its failure."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

from . import _core, context
from .arrays import View
from .process_set import ProcessSet

__all__ = ["Keep", "buckets", "communicator_of", "name_of", "root_of"]

_abandoned: list[Any] = []
"""Arrays of calls that failed half-way. MPI may still write to them, so they live as long as the process."""


class Keep:
    """Keeps arrays alive if the communicator fails in the block: then messages may still be under way."""

    def __init__(self, communicator: _core.Communicator, *arrays: Any) -> None:
        self.communicator = communicator
        self.arrays = arrays

    def __enter__(self) -> None:
        self.usable = not self.communicator.failure

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.usable and self.communicator.failure:
            _abandoned.append(self.arrays)


def name_of(name: str | None) -> str:
    if name is None:
        return ""
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, not {name!r}")
    return name.encode("utf-8", "replace").decode()


def communicator_of(process_set: ProcessSet) -> _core.Communicator:
    context.world()
    if not isinstance(process_set, ProcessSet):
        raise TypeError(f"process_set must be a ronde.ProcessSet, not {type(process_set).__name__}")
    return process_set._member()


def root_of(root_rank: int, process_set: ProcessSet) -> int:
    """The root's rank in the set, from its rank in the job."""
    try:
        return process_set.ranks.index(operator.index(root_rank))
    except TypeError:
        raise TypeError(f"root_rank must be a whole number, not {root_rank!r}") from None
    except ValueError:
        raise ValueError(
            f"root_rank {root_rank!r} is none of the ranks {_short(process_set.ranks)}"
        ) from None


def _short(ranks: list[int]) -> str:
    consecutive = ranks == list(range(ranks[0], ranks[-1] + 1))
    return f"{ranks[0]} to {ranks[-1]}" if consecutive else str(ranks)


def buckets(views: Sequence[View]) -> Iterator[list[int]]:
    """Indices of arrays that travel together: one dtype, in order, up to the fusion size."""
    limit = context.world().settings.fusion_bytes
    by_dtype: dict[_core.DType, list[int]] = {}
    for i, each in enumerate(views):
        by_dtype.setdefault(each.dtype, []).append(i)
    for indices in by_dtype.values():
        bucket: list[int] = []
        filled = 0
        for i in indices:
            if bucket and filled + views[i].array.nbytes > limit:
                yield bucket
                bucket, filled = [], 0
            bucket.append(i)
            filled += views[i].array.nbytes
        yield bucket
