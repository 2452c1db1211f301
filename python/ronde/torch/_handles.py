"""Handles of asynchronous calls: whole numbers, as those of Horovod.

A call keeps its tensors until somebody has waited for it, or `shutdown`: its number could still be asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from .. import _core
from ..handles import Handle

__all__ = ["converted", "enter", "forget", "grouped", "poll", "synchronize"]

T = TypeVar("T")

_calls: dict[int, Handle[Any]] = {}  # by their numbers, until somebody has waited for them

# Those whose results are still to be made once they have completed: a tensor in place to be written, say.
# With GPUs results are made in the order of the stream on which somebody waits for them, so not here.
_unfinished: dict[int, Handle[Any]] = {}

_next_number = itertools.count()


def enter(call: Handle[Any]) -> int:
    """The number by which `synchronize` finds a call."""
    if _unfinished:
        _finish_oldest()
    number = next(_next_number)
    _calls[number] = call
    if call._convert is not None and not torch.cuda.is_initialized():
        _unfinished[number] = call
    return number


def _finish_oldest() -> None:
    """Makes results of two calls at most, for which perhaps nobody waits: so those in place are written."""
    for number, call in list(itertools.islice(_unfinished.items(), 2)):
        if not call._call.done:
            return
        _finish(number, call)


def _finish(number: int, call: Handle[Any]) -> None:
    """Makes the result of a call that has completed."""
    _unfinished.pop(number, None)
    with suppress(Exception):  # synchronize raises it
        _ = call.result


def forget() -> None:
    """At the end of a job."""
    _calls.clear()
    _unfinished.clear()


def converted(call: Handle[Any], convert: Callable[[Any], T]) -> Handle[T]:
    """The same call, whose result is converted once it has completed."""
    return Handle(call._call, lambda result: convert(call._converted(result)))


def grouped(calls: Sequence[Handle[T]]) -> Handle[tuple[T, ...]]:
    """Several calls as one, whose result has the results of all."""
    whole = _core.PendingCall([call._call for call in calls])
    return Handle(whole, lambda _: tuple(call.result for call in calls))


def poll(handle: int) -> bool:
    """Return whether an asynchronous call has completed. It does not wait.

    Where it has, what is in place has been written; where CUDA is in use only `synchronize` is sure to do so.

    Args:
        handle: what the call has returned.

    Raises:
        ValueError: no call has this handle, or somebody has waited for it.
    """
    call = _calls.get(handle)
    if call is None:
        raise ValueError(f"there is no call of handle {handle!r}, or synchronize has returned it")
    if not call.done():
        return False
    if handle in _unfinished:
        _finish(handle, call)
    return True


def synchronize(handle: int | Callable[[], Any]) -> Any:
    """Wait until an asynchronous call has completed, and return its result.

    Every call should be waited for: its tensors are kept until then.

    Args:
        handle: what the call has returned.

    Returns:
        The tensor that the call gives; a tuple for a group, `(tensor, received_splits)` for alltoall. None
        if the call was waited for before, or there is none of this handle.

    Raises:
        HorovodInternalError: the call has failed. Where the ranks describe it differently only this
            call fails, and others go on.
    """
    if callable(handle):
        return handle()
    call = _calls.get(handle)
    if call is None:
        return None
    try:
        return call.wait()
    finally:
        if call._call.done:  # and not interrupted
            _calls.pop(handle, None)
            _unfinished.pop(handle, None)
