"""What all collectives share: whom a call is made with, and what it is called."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

from . import _core, context
from .process_set import ProcessSet, global_process_set

__all__ = ["buckets", "communicator_of", "factor_of", "name_of", "root_of", "set_of"]


def name_of(name: str | None) -> str:
    if name is None:
        return ""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")
    return name.encode("utf-8", "replace").decode()


def factor_of(what: str, value: Any) -> float:
    """A number that elements are multiplied by. The native core says the same of calls that it makes."""
    try:
        return math.copysign(math.fabs(value), value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float") from None
    except TypeError:
        raise TypeError(f"{what} must be a number, not {value!r}") from None


def set_of(process_set: ProcessSet | None) -> ProcessSet:
    """The set that is meant: None stands for all ranks."""
    if process_set is None:
        return global_process_set
    if not isinstance(process_set, ProcessSet):
        raise TypeError(
            "process_set must be a ronde.ProcessSet that ronde.add_process_set has returned, or None for "
            f"all ranks, not {process_set!r}"
        )
    return process_set


def communicator_of(process_set: ProcessSet | None) -> _core.Communicator:
    # What a process set is attached to is there only while it can be used, in this process.
    try:
        communicator = process_set._communicator  # type: ignore[union-attr]
    except AttributeError:
        communicator = None
    if communicator is not None:
        return communicator
    context.world()
    return set_of(process_set)._member()


def root_of(root_rank: int, process_set: ProcessSet | None) -> int:
    """The root's rank in the set, from its rank in the job."""
    ranks = (process_set or global_process_set).ranks
    if isinstance(
        root_rank, _core.Op
    ):  # which is an index too, and the second argument of allreduce
        raise TypeError(
            f"root_rank must be a whole number, not {root_rank!r}; pass op={root_rank!r}"
        )
    try:
        return ranks.index(operator.index(root_rank))
    except TypeError:
        raise TypeError(f"root_rank must be a whole number, not {root_rank!r}") from None
    except ValueError:
        raise ValueError(
            f"root_rank {root_rank!r} is not one of the ranks {_short(ranks)} of the process set"
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
