"""Collectives for things that are no array: any object that can be pickled, and sets of parameters."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

import numpy as np

from . import _core, context
from ._calls import buckets, communicator_of, name_of, root_of
from .arrays import ArrayLike, view
from .process_set import ProcessSet, global_process_set

T = TypeVar("T")

__all__ = ["allgather_object", "broadcast_object", "broadcast_parameters"]


@overload
def broadcast_object(
    obj: None = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Any: ...
@overload
def broadcast_object(
    obj: T | None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> T: ...
def broadcast_object(
    obj: Any = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Any:
    """The object of `root_rank`, pickled there and unpickled elsewhere; the root gets its own back."""
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    is_root = communicator.rank == root
    pickled = np.frombuffer(pickle.dumps(obj), np.uint8) if is_root else np.empty(0, np.uint8)
    length = np.array([pickled.size])
    call = _core.Call("broadcast_object", name_of(name), root=int(root_rank))
    communicator.broadcast(call, length, root)
    data = pickled.copy() if is_root else np.empty(length[0], np.uint8)
    communicator.broadcast(_core.Call("broadcast_object, the object", name_of(name)), data, root)
    return obj if is_root else pickle.loads(data.tobytes())


def allgather_object(
    obj: T, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> list[T]:
    """The objects of all ranks, in the order of the ranks. They are pickled."""
    pickled = np.frombuffer(pickle.dumps(obj), np.uint8)
    call = _core.Call("allgather_object", name_of(name))
    communicator = communicator_of(process_set)
    lengths, data = communicator.allgather(call, pickled, pickled.size, 1)
    ends = np.cumsum(lengths)
    return [
        pickle.loads(data[end - n : end].tobytes()) for n, end in zip(lengths, ends, strict=True)
    ]


def broadcast_parameters(
    params: Mapping[str, ArrayLike] | Iterable[ArrayLike] | Iterable[tuple[str, ArrayLike]],
    root_rank: int = 0,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> None:
    """Gives all ranks the parameters of `root_rank`, in place.

    `params`: a dictionary from names to arrays, pairs of names and arrays (torch's `named_parameters()`),
    or arrays alone. Names, shapes, dtypes and their order must be the same on all ranks.
    """
    labels, arrays = _named(params)
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    views = [
        view(x, f"params[{label}]", writable=True) for label, x in zip(labels, arrays, strict=True)
    ]
    listed = ", ".join(
        f"{label}: {each.dtype.name}{list(each.shape)}"
        for label, each in zip(labels, views, strict=True)
    )
    detail = f"{len(views)} parameters: {listed}"
    communicator.barrier(_core.Call("broadcast_parameters", root=int(root_rank), detail=detail))
    sizes = [each.array.nbytes for each in views]
    limit = context.world().settings.fusion_bytes
    for bucket in buckets([each.dtype for each in views], sizes, limit):
        members = [views[i] for i in bucket]
        packed = np.concatenate([each.array.reshape(-1).view(np.uint8) for each in members])
        call = _core.Call("bucket of broadcast_parameters", root=int(root_rank))
        communicator.broadcast(call, packed, root)
        start = 0
        for each in members:
            end = start + each.array.nbytes
            each.array[...] = packed[start:end].view(each.array.dtype).reshape(each.shape)
            each.write_back()
            start = end


def _named(params: Any) -> tuple[list[str], list[Any]]:
    """Labels as Python shows them, and arrays."""
    if isinstance(params, Mapping):
        return list(map(repr, params)), list(params.values())
    if isinstance(params, (str, bytes)) or not isinstance(params, Iterable):
        raise TypeError(
            "params must be a dictionary of arrays, pairs of names and arrays, or a list of arrays, not "
            f"{params!r}"
        )
    items = list(params)
    if all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items
    ):
        return [repr(name) for name, _ in items], [array for _, array in items]
    return [str(i) for i in range(len(items))], items
