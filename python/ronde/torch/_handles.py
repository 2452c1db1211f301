"""Handles of asynchronous calls: whole numbers, as those of Horovod."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .. import _core
from ..handles import Handle

__all__ = ["converted", "enter", "forget", "grouped", "poll", "synchronize"]

T = TypeVar("T")

_calls: dict[int, Handle[Any]] = {}  # by their numbers, until somebody has waited for them
_next_number = itertools.count()


def enter(call: Handle[Any]) -> int:
    """The number by which `synchronize` finds a call."""
    number = next(_next_number)
    _calls[number] = call
    return number


def forget() -> None:
    """At the end of a job."""
    _calls.clear()


def converted(call: Handle[Any], convert: Callable[[Any], T]) -> Handle[T]:
    """The same call, whose result is converted once it has ended."""
    return Handle(call._call, lambda result: convert(call._converted(result)))


def grouped(calls: Sequence[Handle[T]]) -> Handle[tuple[T, ...]]:
    """Several calls as one, whose result has the results of all."""
    whole = _core.PendingCall([call._call for call in calls])
    return Handle(whole, lambda _: tuple(call.result for call in calls))


def poll(handle: int) -> bool:
    """Return whether an asynchronous call has ended. It does not wait.

    Args:
        handle: what the call has returned.

    Raises:
        ValueError: no call has this handle, or somebody has waited for it.
    """
    call = _calls.get(handle)
    if call is None:
        raise ValueError(f"there is no call of handle {handle!r}, or synchronize has returned it")
    return call.done()


def synchronize(handle: int | Callable[[], Any]) -> Any:
    """Wait for the end of an asynchronous call, and return its result.

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
    call = _calls.pop(handle, None)
    return None if call is None else call.wait()
