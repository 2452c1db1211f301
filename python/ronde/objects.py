"""Collectives for things that are no array: objects, and sets of parameters.

Objects are pickled, or sent as `RONDE_OBJECTS` says: unpickling runs code of the sender
(docs/security.md).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    if _accepted_form() == "pickle":
        return np.frombuffer(pickle.dumps(obj), np.uint8)
    try:
        return np.frombuffer(json.dumps(obj).encode(), np.uint8)
    except TypeError as error:
        raise TypeError(f"{error}, and RONDE_OBJECTS is json") from None


def unpack(data: npt.NDArray[np.uint8]) -> Any:
    """The object that `pack` has made these bytes of."""
    return json.loads(data.tobytes()) if _form() == "json" else pickle.loads(data.tobytes())


def _accepted_form() -> str:
    form = _form()
    if form == "refuse":
        raise RondeError("objects are refused: RONDE_OBJECTS is refuse on all ranks")
    return form


def _form() -> str:
    if context.is_initialized():
        return context.world().settings.objects
    form: str = settings.VARIABLES["objects"].default
    return form


# A rank whose object cannot be packed takes part all the same: the others would wait, or take its next object
# for this one. So what travels is a byte that says whether the rest is the object, or why there is none.
_OBJECT, _TROUBLE = 0, 1


def _outgoing(obj: Any) -> tuple[npt.NDArray[np.uint8], Exception | None]:
    """What travels, and why the object does not, to be raised when this rank has taken part."""
    _accepted_form()  # all ranks refuse before anything is sent
    trouble: Exception | None = None
    try:
        kind, content = _OBJECT, pack(obj)
    except Exception as error:
        kind, trouble = _TROUBLE, error
        content = np.frombuffer(f"{type(error).__name__}: {error}".encode(), np.uint8)
    message = np.empty(1 + content.size, np.uint8)
    message[0], message[1:] = kind, content
    return message, trouble


def _incoming(message: npt.NDArray[np.uint8], rank: int) -> Any:
    """The object of a rank. Raises `RondeError` if it could not be packed."""
    if message[0] == _OBJECT:
        return unpack(message[1:])
    text = message[1:].tobytes().decode(errors="replace")
    raise RondeError(f"rank {rank} could not send its object: {text}")


def broadcast_by(
    broadcast: Callable[[npt.NDArray[np.uint8 | np.int64], str], Any], obj: Any, root_rank: int
) -> Any:
    """The object of a rank of the job. `broadcast` gives an array of the root to all, in place; it is called
    twice, and told what this is."""
    is_root = context.rank() == root_rank
    message, trouble = _outgoing(obj if is_root else None)
    length = np.array([message.size], np.int64)
    broadcast(length, "its length")
    if not is_root:
        message = np.empty(length[0], np.uint8)
    broadcast(message, "the object")
    if trouble:
        raise trouble
    return obj if is_root and _form() == "pickle" else _incoming(message, root_rank)


def allgather_by(
    allgather: Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.uint8], list[int]]],
    obj: Any,
    ranks: Sequence[int],
) -> list[Any]:
    """The objects of these ranks of the job. `allgather` gives the rows of all, and how many are whose."""
    message, trouble = _outgoing(obj)
    rows, lengths = allgather(message)
    if trouble:
        raise trouble
    ends = np.cumsum(lengths)
    # A rank that has joined has none.
    return [
        _incoming(rows[end - n : end], rank)
        for rank, n, end in zip(ranks, lengths, ends, strict=True)
        if n
    ]


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

    Raises:
        RondeError: the root could not pack its object, and raises its own error; or `RONDE_OBJECTS` is
            "refuse".
    """
    communicator = communicator_of(process_set)
    root, label = root_of(root_rank, process_set), name_of(name)

    def broadcast(data: npt.NDArray[np.uint8 | np.int64], what: str) -> None:
        call = _core.Call(f"broadcast_object, {what}", label, root=int(root_rank))
        communicator.broadcast(data, root, call=call)

    return broadcast_by(broadcast, obj, root_rank)


def allgather_object(
    obj: T, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> list[T]:
    """Return the objects of all ranks, as a list in the order of the ranks.

    They travel as in `broadcast_object`, whose arguments these are. Ranks that are in `join` have
    none.

    Raises:
        RondeError: a rank could not pack its object, and raises its own error; or `RONDE_OBJECTS` is
            "refuse".
    """
    communicator = communicator_of(process_set)
    call = _core.Call("allgather_object", name_of(name))
    ranks = (process_set or global_process_set).ranks
    return allgather_by(lambda data: communicator.allgather(data, call=call), obj, ranks)


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
