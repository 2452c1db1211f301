"""Collectives for things that are no array: any object that can be pickled, and sets of parameters."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import _core, context
from ._calls import buckets, communicator_of, name_of, root_of
from .arrays import ArrayLike, view
from .process_set import ProcessSet, global_process_set

__all__ = ["allgather_object", "broadcast_object", "broadcast_parameters"]


def broadcast_object(
    obj: Any = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Return the object of `root_rank` on all ranks.

    It is pickled there and unpickled elsewhere, which runs code of the sender. The root gets its
    own object back.

    Args:
        obj: any object that can be pickled. Only the root's counts.
        root_rank: a rank of the job.
        name: shown in errors, and compared between the ranks.
        process_set: the ranks that take part.
    """
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    is_root = communicator.rank == root
    pickled = np.frombuffer(pickle.dumps(obj), np.uint8) if is_root else np.empty(0, np.uint8)
    length = np.array([pickled.size])
    call = _core.Call("broadcast_object", name_of(name), root=process_set.ranks[root])
    communicator.broadcast(call, length, root)
    data = pickled.copy() if is_root else np.empty(length[0], np.uint8)
    communicator.broadcast(_core.Call("broadcast_object, the object", name_of(name)), data, root)
    return obj if is_root else pickle.loads(data.tobytes())


def allgather_object(
    obj: Any, name: str | None = None, *, process_set: ProcessSet = global_process_set
) -> list[Any]:
    """Return the objects of all ranks, as a list in the order of the ranks.

    They are pickled and unpickled, which runs code of the senders. The arguments are those of
    `broadcast_object`.
    """
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
    process_set: ProcessSet = global_process_set,
) -> None:
    """Give all ranks the parameters of `root_rank`, in place.

    Args:
        params: a dictionary from names to arrays, pairs of names and arrays (as of torch's
            `named_parameters()`), or arrays alone. Names, shapes, dtypes and their order must be
            the same on all ranks.
        root_rank: a rank of the job.
        process_set: the ranks that take part.

    Raises:
        MismatchError: names, shapes or dtypes differ between the ranks.
        ValueError: an array is read only.
    """
    names, arrays = _named(params)
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    views = [view(x, writable=True) for x in arrays]
    listed = ", ".join(
        f"{name}: {each.dtype.name}{list(each.shape)}"
        for name, each in zip(names, views, strict=True)
    )
    detail = f"{len(views)} parameters: {listed}"
    communicator.barrier(
        _core.Call("broadcast_parameters", root=process_set.ranks[root], detail=detail)
    )
    sizes = [each.array.nbytes for each in views]
    limit = context.world().settings.fusion_bytes
    for bucket in buckets([each.dtype for each in views], sizes, limit):
        members = [views[i] for i in bucket]
        packed = np.concatenate([each.array.reshape(-1).view(np.uint8) for each in members])
        call = _core.Call("bucket of broadcast_parameters", root=process_set.ranks[root])
        communicator.broadcast(call, packed, root)
        start = 0
        for each in members:
            end = start + each.array.nbytes
            each.array[...] = packed[start:end].view(each.array.dtype).reshape(each.shape)
            each.write_back()
            start = end


def _named(params: Any) -> tuple[list[str], list[Any]]:
    if isinstance(params, Mapping):
        return [str(name) for name in params], list(params.values())
    items = list(params)
    if all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items
    ):
        return [name for name, _ in items], [array for _, array in items]
    return [str(i) for i in range(len(items))], items
