"""Asynchronous calls: what is under way, and how to wait for it."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

from . import _core, context
from ._calls import communicator_of, name_of, root_of
from ._groups import Way, key_of, submit_group
from .arrays import View, listed, view
from .movements import checked_splits
from .process_set import ProcessSet, global_process_set
from .reductions import Average, Op, alone, labelled, what_x, what_xs

__all__ = [
    "Handle",
    "allgather_async",
    "allreduce_async",
    "allreduce_async_",
    "alltoall_async",
    "barrier_async",
    "broadcast_async",
    "broadcast_async_",
    "grouped_allreduce_async",
    "grouped_allreduce_async_",
    "poll",
    "reduce_async",
    "reducescatter_async",
    "synchronize",
]

T = TypeVar("T")

_converting = threading.RLock()  # a group's result is made of those of its calls

_FIRST_SLEEP, _LONGEST_SLEEP = 20e-6, 2e-3  # seconds, of a task that awaits a handle


class Handle(Generic[T]):
    """A call that has been submitted, and may be under way.

    It completes whether or not anybody keeps the handle. Until then the arrays belong to the call: what
    is written to them meanwhile may or may not be taken. Calls move while this process submits, polls
    or waits, for whatever call.
    """

    __slots__ = ("_call", "_convert", "_result")

    def __init__(self, call: _core.PendingCall, convert: Callable[[Any], T] | None = None) -> None:
        self._call = call
        self._convert = convert  # what the call gives, once
        self._result: T

    def done(self) -> bool:
        """Return whether the call has ended, with a result or an error. It does not wait."""
        return self._call.done or self._call.poll()

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the end of the call, and return its result.

        Args:
            timeout: seconds; None for no limit but `RONDE_STALL_TIMEOUT`.

        Raises:
            TimeoutError: the call has not ended by then. It goes on.
            MismatchError: the ranks describe it differently. Other calls go on.
            RondeError: it failed.
        """
        return self._converted(self._call.wait(timeout))

    @property
    def result(self) -> T:
        """The result of a call that has ended.

        Raises:
            RondeError: it has not ended, or it failed.
        """
        return self._converted(self._call.result())

    def _converted(self, result: Any) -> T:
        if self._convert is None:
            return result  # type: ignore[no-any-return]
        with _converting:  # once, whoever asks
            if not hasattr(self, "_result"):
                self._result = self._convert(result)
        return self._result

    def __await__(self) -> Generator[Any, None, T]:
        sleep = _FIRST_SLEEP
        while not self.done():
            yield from asyncio.sleep(sleep).__await__()
            sleep = min(2 * sleep, _LONGEST_SLEEP)
        return self.result

    def __repr__(self) -> str:
        return f"<ronde.Handle, {'done' if self._call.done else 'under way'}>"


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
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit an allreduce of `x`, whose result is a new array.

    The arguments are those of `allreduce`. Calls with a name can be submitted in another order on each
    rank; those without are told apart by their order. Several may be reduced together.

    Raises:
        ValueError: a call with that name is pending.
    """
    factors = prescale_factor, postscale_factor
    if compression is not None:
        return _compressed(x, False, op, name, factors, compression, process_set)
    return _allreduce(x, None, False, op, name, factors, process_set)


def allreduce_async_(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit an allreduce of `x` in place, as `allreduce_async` does."""
    factors = prescale_factor, postscale_factor
    if compression is not None:
        return _compressed(x, True, op, name, factors, compression, process_set)
    return _allreduce(x, None, True, op, name, factors, process_set)


def grouped_allreduce_async(
    xs: Iterable[T],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[list[T]]:
    """Submit an allreduce of each of several arrays; one handle stands for all of them.

    The arguments are those of `grouped_allreduce`. `name` becomes `name[0]`, `name[1]` and so on; with
    `compression` the group is one call of that name.
    """
    factors = prescale_factor, postscale_factor
    if compression is not None:
        return _compressed_group(xs, False, op, name, factors, compression, process_set)
    return _grouped(xs, False, op, name, factors, process_set)


def grouped_allreduce_async_(
    xs: Iterable[T],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[list[T]]:
    """Submit an allreduce in place of each of several arrays, as `grouped_allreduce_async` does."""
    factors = prescale_factor, postscale_factor
    if compression is not None:
        return _compressed_group(xs, True, op, name, factors, compression, process_set)
    return _grouped(xs, True, op, name, factors, process_set)


def reduce_async(
    x: T,
    root_rank: int = 0,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T | None]:
    """Submit a reduction to one rank. Arguments and result are those of `reduce`."""
    root = root_of(root_rank, process_set)
    factors = prescale_factor, postscale_factor
    return _submit(
        x,
        lambda engine, to, array, dtype: engine.reduce(to, array, root, op, name, *factors, dtype),
        lambda result, seen: seen.give_back() if result is None else seen.wrap(result),
        process_set,
    )


def reducescatter_async(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit a reduction that leaves each rank a part. Arguments and result are those of
    `reducescatter`.
    """
    factors = prescale_factor, postscale_factor
    return _submit(
        x,
        lambda engine, to, array, dtype: engine.reducescatter(to, array, op, name, *factors, dtype),
        lambda result, seen: seen.wrap(result),
        process_set,
    )


def broadcast_async(
    x: T,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit a broadcast, whose result is a new array. The arguments are those of `broadcast`."""
    seen, root = view(x), root_of(root_rank, process_set)
    communicator = communicator_of(process_set)
    output = seen.duplicate(copies=communicator.rank == root)
    call = context.world().engine.broadcast(communicator, output, root, name, seen.dtype)
    return Handle(call, seen.wrap)


def broadcast_async_(
    x: T,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[T]:
    """Submit a broadcast in place. The arguments are those of `broadcast_`."""
    root = root_of(root_rank, process_set)
    return _submit(
        x,
        lambda engine, to, array, dtype: engine.broadcast(to, array, root, name, dtype),
        lambda _, seen: _written(x, seen),
        process_set,
        writable=True,
    )


def allgather_async(
    x: T, name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> Handle[T]:
    """Submit an allgather. Arguments and result are those of `allgather`."""
    return _submit(
        x,
        lambda engine, to, array, dtype: engine.allgather(to, array, name, dtype),
        lambda result, seen: seen.wrap(result[0]),
        process_set,
        operator.itemgetter(0),
    )


def alltoall_async(
    x: T,
    splits: Sequence[int] | None = None,
    name: str | None = None,
    *,
    process_set: ProcessSet | None = global_process_set,
) -> Handle[Any]:
    """Submit an alltoall. Arguments and result are those of `alltoall`."""
    if splits is not None:
        shape = view(x).shape
        size = communicator_of(process_set).size
        splits = checked_splits(splits, shape[0] if shape else 0, size)

    def result_of(done: tuple[Any, list[int]], seen: View | None) -> Any:
        joined = seen.wrap(done[0]) if seen else done[0]
        return joined if splits is None else (joined, done[1])

    return _submit(
        x,
        lambda engine, to, array, dtype: engine.alltoall(to, array, splits, name, dtype),
        result_of,
        process_set,
        lambda done: result_of(done, None),
    )


def barrier_async(
    name: str | None = None, *, process_set: ProcessSet | None = global_process_set
) -> Handle[None]:
    """Submit a barrier: it ends when all ranks have submitted it."""
    return Handle(context.world().engine.barrier(communicator_of(process_set), name))


def _submit(
    x: Any,
    call: Callable[[_core.Engine, _core.Communicator, Any, _core.DType | None], Any],
    result_of: Callable[[Any, View], T],
    process_set: ProcessSet | None,
    plain_result: Callable[[Any], T] | None = None,
    *,
    writable: bool = False,
) -> Handle[T]:
    """Submits a call of `x` as it is, whose result is what `plain_result` makes of the core's; or of what it
    is seen as."""
    communicator = communicator_of(process_set)
    engine = context.world().engine
    pending = call(engine, communicator, x, None)
    if pending is not None:
        return Handle(pending, plain_result)
    seen = view(x, writable=writable)
    pending = call(engine, communicator, seen.operand, seen.dtype)
    return Handle(pending, lambda result: result_of(result, seen))


def _plain_allreduce(
    x: T,
    in_place: bool,
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    process_set: ProcessSet | None,
) -> Handle[T] | None:
    """None where the core does not take `x` as it is."""
    communicator = communicator_of(process_set)
    engine = context.world().engine
    call = engine.allreduce(communicator, x, x if in_place else None, op, name, *factors)
    return None if call is None else Handle(call)


def _allreduce(
    x: T,
    seen: View | None,
    in_place: bool,
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    process_set: ProcessSet | None,
) -> Handle[T]:
    """`seen`: what is known of `x` already."""
    if seen is None:
        plain = _plain_allreduce(x, in_place, op, name, factors, process_set)
        if plain is not None:
            return plain
        seen = view(x, writable=in_place)
    operand = seen.operand
    output = operand if in_place else None
    engine, communicator = context.world().engine, communicator_of(process_set)
    call = engine.allreduce(communicator, operand, output, op, name, *factors, seen.dtype)
    return Handle(call, lambda result: _written(x, seen) if in_place else seen.wrap(result))


def _grouped(
    xs: Iterable[T],
    in_place: bool,
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    process_set: ProcessSet | None,
) -> Handle[list[T]]:
    arrays = listed(xs)
    # All of them are looked at before anything is submitted.
    seen = [
        None if _core.is_plain(x, in_place) else view(x, f"xs[{i}]", writable=in_place)
        for i, x in enumerate(arrays)
    ]
    common = name_of(name)
    names = [f"{common}[{i}]" if common else None for i in range(len(arrays))]
    handles = [
        _allreduce(x, each, in_place, op, name, factors, process_set)
        for x, each, name in zip(arrays, seen, names, strict=True)
    ]
    calls = _core.PendingCall([handle._call for handle in handles])
    return Handle(calls, lambda _: [handle.result for handle in handles])


def _compressed(
    x: T,
    in_place: bool,
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    compression: Any,
    process_set: ProcessSet | None,
) -> Handle[T]:
    way = Way("allreduce", op, name, *factors, key_of(compression))
    label = alone(name, compression)
    call, results_of = submit_group([x], way, process_set, label, what_x, in_place=in_place)
    return Handle(call, lambda done: (results_of(done)[0], x)[in_place])


def _compressed_group(
    xs: Iterable[T],
    in_place: bool,
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    compression: Any,
    process_set: ProcessSet | None,
) -> Handle[list[T]]:
    arrays = listed(xs)
    way = Way("grouped_allreduce", op, name, *factors, key_of(compression))
    label = labelled(name, compression)
    call, results_of = submit_group(arrays, way, process_set, label, what_xs, in_place=in_place)
    return Handle(call, lambda done: (results_of(done), arrays)[in_place])


def _written(x: T, seen: View) -> T:
    seen.write_back()
    return x
