"""What all collectives share: whom a call is made with, and what it is called."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

from . import _core, context
from .process_set import ProcessSet

__all__ = ["buckets", "communicator_of", "name_of", "root_of"]


def name_of(name: str | None) -> str:
    if name is None:
        return ""
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, not {name!r}")
    return name.encode("utf-8", "replace").decode()


def communicator_of(process_set: ProcessSet) -> _core.Communicator:
    # What a process set is attached to is there only while it can be used, in this process.
    communicator = getattr(process_set, "_communicator", None)
    if communicator is not None:
        return communicator  # type: ignore[no-any-return]
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


def buckets(dtypes: Sequence[_core.DType], sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices of arrays that travel together: of one dtype, in order, up to so many bytes."""
    by_dtype: dict[_core.DType, list[int]] = {}
    for i, dtype in enumerate(dtypes):
        by_dtype.setdefault(dtype, []).append(i)
    for indices in by_dtype.values():
        bucket: list[int] = []
        filled = 0
        for i in indices:
            if bucket and filled + sizes[i] > limit:
                yield bucket
                bucket, filled = [], 0
            bucket.append(i)
            filled += sizes[i]
        yield bucket
