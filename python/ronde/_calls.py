"""What all collectives share: whom a call is made with, and what it is called."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Sequence

from . import _core, context
from .arrays import View
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


def buckets(views: Sequence[View], kinds: Sequence[Hashable]) -> Iterator[list[int]]:
    """Indices of arrays that travel together: one dtype and kind, in order, up to the fusion size."""
    limit = context.world().settings.fusion_bytes
    by_kind: dict[Hashable, list[int]] = {}
    for i, (each, kind) in enumerate(zip(views, kinds, strict=True)):
        by_kind.setdefault((each.dtype, kind), []).append(i)
    for indices in by_kind.values():
        bucket: list[int] = []
        filled = 0
        for i in indices:
            if bucket and filled + views[i].array.nbytes > limit:
                yield bucket
                bucket, filled = [], 0
            bucket.append(i)
            filled += views[i].array.nbytes
        yield bucket
