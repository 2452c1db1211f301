"""Collectives that only move data: broadcast, allgather, gather, scatter, alltoall; and barrier."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _core
from ._calls import communicator_of, name_of, root_of
from .arrays import ArrayLike, is_torch, listed, make, view, views
from .process_set import ProcessSet, global_process_set

T = TypeVar("T")  # of an array: results are of the kind that came in
Number = bool | int | float | np.generic

__all__ = [
    "allgather",
    "alltoall",
    "barrier",
    "broadcast",
    "broadcast_",
    "gather",
    "grouped_allgather",
    "scatter",
]


def broadcast(
    x: T,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> T:
    """Return the array of `root_rank`, as a new array.

    Args:
        x: an array of the same shape and dtype on all ranks. Only the values of the root count.
        root_rank: a rank of the job.
        name: shown in errors, and compared between the ranks.
        process_set: the ranks that take part; None for all.
    """
    seen = view(x)
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    output = seen.duplicate(copies=communicator.rank == root)
    communicator.broadcast(output, root, name, seen.dtype)
    result: T = seen.wrap(output)
    return result


def broadcast_(
    x: T,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> T:
    """Broadcast in place. `x` receives the array of `root_rank`, and is returned.

    The arguments are those of `broadcast`.

    Raises:
        ValueError: the array is read only.
    """
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    if communicator.broadcast(x, root, name) is None:
        seen = view(x, writable=True)
        communicator.broadcast(seen.operand, root, name, seen.dtype)
        seen.write_back()
    return x


@overload
def allgather(
    x: Number, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> npt.NDArray[Any]: ...
@overload
def allgather(
    x: T, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> T: ...
def allgather(
    x: Any, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> Any:
    """Join the arrays of all ranks along the first dimension, in the order of the ranks.

    Args:
        x: an array whose first dimension may differ between ranks; the other dimensions and the
            dtype may not. A number or an array of no dimensions counts as one row.
        name: shown in errors, and compared between the ranks.
        process_set: the ranks that take part; None for all.

    Returns:
        A new array of shape `(rows of all ranks, *x.shape[1:])`.
    """
    communicator = communicator_of(process_set)
    done = communicator.allgather(x, name)
    if done is not None:
        return done[0]
    seen = view(x)
    return seen.wrap(communicator.allgather(seen.operand, name, seen.dtype)[0])


@overload
def grouped_allgather(
    xs: Iterable[Number],
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> list[npt.NDArray[Any]]: ...
@overload
def grouped_allgather(
    xs: Iterable[T],
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> list[T]: ...
def grouped_allgather(
    xs: Iterable[Any],
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> list[Any]:
    """Apply `allgather` to each of several arrays, and return the results as a list."""
    communicator = communicator_of(process_set)
    common = name_of(name) or "group"
    seen = views(listed(xs))  # all of them, before anything is sent
    return [
        each.wrap(communicator.allgather(each.operand, f"{common}[{i}]", each.dtype)[0])
        for i, each in enumerate(seen)
    ]


@overload
def gather(
    x: Number,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> npt.NDArray[Any] | None: ...
@overload
def gather(
    x: T,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> T | None: ...
def gather(
    x: ArrayLike,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Any:
    """Join the arrays of all ranks on `root_rank` alone.

    The arguments are those of `allgather`, and `root_rank`, a rank of the job.

    Returns:
        On the root a new array as of `allgather`. None on all other ranks.
    """
    communicator = communicator_of(process_set)
    seen = view(x)
    root = root_of(root_rank, process_set)
    gathered = communicator.gather(seen.operand, root, name, seen.dtype)
    return seen.give_back() if gathered is None else seen.wrap(gathered[0])


@overload
def scatter(
    x: None = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    splits: Sequence[int] | None = None,
    process_set: ProcessSet | None = global_process_set,
) -> Any: ...
@overload
def scatter(
    x: T | None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    splits: Sequence[int] | None = None,
    process_set: ProcessSet | None = global_process_set,
) -> T: ...
def scatter(
    x: ArrayLike | None = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    splits: Sequence[int] | None = None,
    process_set: ProcessSet | None = global_process_set,
) -> Any:
    """Cut the array of `root_rank` along the first dimension, and return this rank's part.

    Args:
        x: an array of at least one dimension. Only the root must pass it.
        root_rank: a rank of the job.
        name: shown in errors, and compared between the ranks.
        splits: the rows of each rank; only on the root. By default the parts are as even as
            possible, and lower ranks get a row more where the rows do not divide.
        process_set: the ranks that take part; None for all.

    Returns:
        A new array, on all ranks of the kind that the root passed (NumPy or torch; for an array of a
        GPU, one of the host).

    Raises:
        TypeError: the root passed no array, or one of no dimensions.
        ValueError: `splits` does not add up to the rows.
    """
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    if communicator.rank != root:
        count, data, header = communicator.scatter(None, [], 0, [], root, name)
    else:
        if x is None:
            raise TypeError("x: the root of a scatter must pass an array, not None")
        seen = view(x)
        if not seen.shape:
            raise TypeError("scatter needs an array of at least one dimension")
        rows = checked_splits(splits, seen.shape[0], communicator.size)
        header_words = [_DTYPES.index(seen.dtype), is_torch(x), *seen.shape[1:]]
        row_bytes = int(np.prod(seen.shape[1:], dtype=np.int64)) * int(seen.operand.dtype.itemsize)
        count, data, header = communicator.scatter(
            seen.operand, rows, row_bytes, header_words, root, name
        )
    dtype, torch, *rest = header
    return make(data, _DTYPES[dtype], (count, *rest), torch=bool(torch))


_DTYPES = list(_core.DType.__members__.values())


def checked_splits(splits: Sequence[int] | None, rows: int, size: int) -> list[int]:
    """How many rows go to each rank."""
    if splits is None:
        return [rows // size + (rank < rows % size) for rank in range(size)]
    try:
        counts = [operator.index(n) for n in splits]
    except TypeError:
        raise TypeError(
            f"splits must be a list of whole numbers, one for each rank, not {splits!r}"
        ) from None
    if len(counts) != size:
        raise ValueError(f"splits has {len(counts)} entries for {size} ranks")
    if min(counts) < 0 or sum(counts) != rows:
        raise ValueError(f"splits {counts} do not add up to the {rows} rows of the array")
    return counts


@overload
def alltoall(
    x: T,
    splits: None = None,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> T: ...
@overload
def alltoall(
    x: T,
    splits: Sequence[int],
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> tuple[T, list[int]]: ...
def alltoall(
    x: ArrayLike,
    splits: Sequence[int] | None = None,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Any:
    """Send the rows of `x` to the ranks, the first `splits[0]` of them to rank 0 and so on.

    Args:
        x: an array of at least one dimension. Without `splits` its rows must divide by the number
            of ranks.
        splits: how many rows go to each rank.
        name: shown in errors, and compared between the ranks.
        process_set: the ranks that take part; None for all.

    Returns:
        The rows that came, joined in the order of the senders. With `splits` a pair: these rows,
        and a list with the number of rows from each rank.

    Raises:
        ValueError: the rows do not divide, or `splits` does not add up to them.
    """
    communicator = communicator_of(process_set)
    if splits is None:
        done = communicator.alltoall(x, None, name)
        if done is not None:
            return done[0]
    seen = view(x)
    if splits is not None:
        splits = checked_splits(splits, seen.shape[0] if seen.shape else 0, communicator.size)
    joined, received = communicator.alltoall(seen.operand, splits, name, seen.dtype)
    result = seen.wrap(joined)
    return result if splits is None else (result, received)


def barrier(
    name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> None:
    """Return when all ranks have called it."""
    communicator_of(process_set).barrier(name)
