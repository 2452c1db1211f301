"""Asynchronous calls: what is under way, and how to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from . import _core, context
from ._calls import communicator_of, root_of
from .arrays import View, view
from .errors import RondeError
from .process_set import ProcessSet, global_process_set
from .reductions import Average, Op

__all__ = [
    "Handle",
    "allreduce_async",
    "allreduce_async_",
    "barrier_async",
    "broadcast_async_",
    "poll",
    "synchronize",
]

T = TypeVar("T")

_FIRST_SLEEP, _LONGEST_SLEEP = 20e-6, 2e-3  # seconds, of a task that awaits a handle


class Handle(Generic[T]):
    """A call that has been submitted, and may be under way.

    It completes whether or not anybody keeps the handle. Until then the arrays belong to the call: what
    is written to them meanwhile may or may not be taken. Calls move while this process submits, polls
    or waits, for whatever call.
    """

    def __init__(
        self, engine: _core.Engine, submission: _core.Submission, finish: Callable[[], T]
    ) -> None:
        self._engine = engine
        self._submission = submission
        self._finish: Callable[[], T] | None = finish
        self._result: T

    def done(self) -> bool:
        """Return whether the call has ended, with a result or an error. It does not wait."""
        return self._submission.done or self._engine.poll(self._submission)

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the end of the call, and return its result.

        Args:
            timeout: seconds; None for no limit but `RONDE_STALL_TIMEOUT`.

        Raises:
            TimeoutError: the call has not ended by then. It goes on.
            MismatchError: the ranks describe it differently. Other calls go on.
            RondeError: it failed.
        """
        if not self._submission.done and not self._engine.wait(self._submission, timeout):
            raise TimeoutError(f"the call has not ended within {timeout} s; it goes on")
        return self.result

    @property
    def result(self) -> T:
        """The result of a call that has ended.

        Raises:
            RondeError: it has not ended, or it failed.
        """
        if not self._submission.done:
            raise RondeError("the call has not ended yet: wait() waits for its result")
        self._submission.result()
        if self._finish is not None:
            self._result, self._finish = self._finish(), None
        return self._result

    def __await__(self) -> Generator[Any, None, T]:
        sleep = _FIRST_SLEEP
        while not self.done():
            yield from asyncio.sleep(sleep).__await__()
            sleep = min(2 * sleep, _LONGEST_SLEEP)
        return self.result

    def __repr__(self) -> str:
        return f"<ronde.Handle, {'done' if self._submission.done else 'under way'}>"


def synchronize(handle: Handle[T]) -> T:
    """Wait for a call and return its result: `handle.wait()`."""
    return handle.wait()


def poll(handle: Handle[Any]) -> bool:
    """Return whether a call has ended: `handle.done()`."""
    return handle.done()


def allreduce_async(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit an allreduce of `x`, whose result is a new array.

    The arguments are those of `allreduce`. Calls with a name can be submitted in another order on each
    rank; those without are told apart by their order. Several may be reduced together.

    Raises:
        ValueError: a call with that name is pending.
    """
    factors = prescale_factor, postscale_factor
    return _allreduce(x, False, op, name, factors, process_set)


def allreduce_async_(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit an allreduce of `x` in place, as `allreduce_async` does."""
    factors = prescale_factor, postscale_factor
    return _allreduce(x, True, op, name, factors, process_set)


def _allreduce(
    x: T,
    in_place: bool,
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    process_set: ProcessSet | None,
) -> Handle[T]:
    communicator = communicator_of(process_set)
    engine = context.world().engine
    submitted = engine.allreduce(communicator, x, x if in_place else None, op, name, *factors)
    if submitted is not None:
        submission, result = submitted
        return Handle(engine, submission, lambda: x if in_place else result)
    seen = view(x, writable=in_place)
    output = seen.array if in_place else None
    submission, result = engine.allreduce(
        communicator, seen.array, output, op, name, *factors, dtype=seen.dtype
    )
    if in_place:
        return Handle(engine, submission, lambda: _written(x, seen))
    return Handle(engine, submission, lambda: seen.wrap(result))


def broadcast_async_(
    x: T,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit a broadcast in place, of the root's `x`. The arguments are those of `broadcast_`."""
    communicator = communicator_of(process_set)
    engine = context.world().engine
    root = root_of(root_rank, process_set)
    submitted = engine.broadcast(communicator, x, root, name)
    if submitted is not None:
        return Handle(engine, submitted[0], lambda: x)
    seen = view(x, writable=True)
    submission, _ = engine.broadcast(communicator, seen.array, root, name, dtype=seen.dtype)
    return Handle(engine, submission, lambda: _written(x, seen))


def barrier_async(
    name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> Handle[None]:
    """Submit a barrier: it ends when all ranks have submitted it."""
    communicator = communicator_of(process_set)
    engine = context.world().engine
    return Handle(engine, engine.barrier(communicator, name), lambda: None)


def _written(x: T, seen: View) -> T:
    seen.write_back()
    return x
