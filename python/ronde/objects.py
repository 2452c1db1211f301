"""Collectives for things that are no array: objects, and sets of parameters.

Objects are pickled, or sent as `RONDE_OBJECTS` says: unpickling runs code of the sender
(docs/security.md).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _core, context, settings
from ._calls import buckets, communicator_of, name_of, root_of
from .arrays import ArrayLike, view
from .errors import RondeError
from .process_set import ProcessSet, global_process_set

T = TypeVar("T")

__all__ = ["allgather_object", "broadcast_object", "broadcast_parameters"]


def pack(obj: Any) -> npt.NDArray[np.uint8]:
    """The bytes that an object travels as.

    Raises `RondeError` where `RONDE_OBJECTS` is "refuse", `TypeError` for what is not of JSON where it is
    "json".
    """
    form = _form()
    if form == "refuse":
        raise RondeError("objects are refused: RONDE_OBJECTS is refuse on all ranks")
    if form == "pickle":
        return np.frombuffer(pickle.dumps(obj), np.uint8)
    try:
        return np.frombuffer(json.dumps(obj).encode(), np.uint8)
    except TypeError as error:
        raise TypeError(f"{error}, and RONDE_OBJECTS is json") from None


def unpack(data: npt.NDArray[np.uint8]) -> Any:
    """The object that `pack` has made these bytes of."""
    return json.loads(data.tobytes()) if _form() == "json" else pickle.loads(data.tobytes())


def _form() -> str:
    if context.is_initialized():
        return context.world().settings.objects
    form: str = settings.VARIABLES["objects"].default
    return form


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
    """Return the object of `root_rank` on all ranks.

    It is pickled there and unpickled elsewhere, which runs code of the sender. The root gets its
    own object back. With `RONDE_OBJECTS=json` all ranks get what JSON makes of it: lists instead of
    tuples, and strings as keys.

    Args:
        obj: any object that can be pickled. Only the root's counts.
        root_rank: a rank of the job.
        name: shown in errors, and compared between the ranks.
        process_set: the ranks that take part; None for all.
    """
    communicator = communicator_of(process_set)
    root = root_of(root_rank, process_set)
    is_root = communicator.rank == root
    packed = pack(obj if is_root else None)
    length = np.array([packed.size])
    call = _core.Call("broadcast_object", name_of(name), root=int(root_rank))
    communicator.broadcast(length, root, call=call)
    data = packed.copy() if is_root else np.empty(length[0], np.uint8)
    call = _core.Call("broadcast_object, the object", name_of(name))
    communicator.broadcast(data, root, call=call)
    return obj if is_root and _form() == "pickle" else unpack(data)


def allgather_object(
    obj: T, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> list[T]:
    """Return the objects of all ranks, as a list in the order of the ranks.

    They travel as in `broadcast_object`, whose arguments these are. Ranks that are in `join` have
    none.
    """
    packed = pack(obj)
    call = _core.Call("allgather_object", name_of(name))
    communicator = communicator_of(process_set)
    data, lengths = communicator.allgather(packed, call=call)
    ends = np.cumsum(lengths)
    # A rank that has joined has none.
    return [unpack(data[end - n : end]) for n, end in zip(lengths, ends, strict=True) if n]


def broadcast_parameters(
    params: Mapping[str, ArrayLike] | Iterable[ArrayLike] | Iterable[tuple[str, ArrayLike]],
    root_rank: int = 0,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> None:
    """Give all ranks the parameters of `root_rank`, in place.

    Args:
        params: a dictionary from names to arrays, pairs of names and arrays (as of torch's
            `named_parameters()`), or arrays alone. Names, shapes, dtypes and their order must be
            the same on all ranks.
        root_rank: a rank of the job.
        process_set: the ranks that take part; None for all.

    Raises:
        MismatchError: names, shapes or dtypes differ between the ranks.
        ValueError: an array is read only.
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
    call = _core.Call("broadcast_parameters", root=int(root_rank), detail=detail)
    communicator.barrier(call=call)
    sizes = [each.array.nbytes for each in views]
    limit = context.world().settings.fusion_bytes
    for bucket in buckets([each.dtype for each in views], sizes, limit):
        members = [views[i] for i in bucket]
        packed = np.concatenate([each.array.reshape(-1).view(np.uint8) for each in members])
        call = _core.Call("bucket of broadcast_parameters", root=int(root_rank))
        communicator.broadcast(packed, root, call=call)
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
