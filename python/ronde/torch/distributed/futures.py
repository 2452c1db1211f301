"""Futures of torch that complete when a call of Ronde has ended.

Code in C++ that waits for a future calls nobody, so somebody must complete it. In a backward pass that is the
pass itself, at its end, before the reducer of DDP waits: no thread takes time from the gradients, what was
chained by `then` runs in the same order on all ranks, and an error is that of `backward`. Elsewhere it is a
thread. Whoever waits in Python completes it himself.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.futures import Future as _Future

__all__ = ["future_of"]


def future_of(result: Callable[[], Any], done: Callable[[], bool]) -> _Future[Any]:
    """A future that completes with what `result` returns or raises, once `done`."""
    promise = _Promise(result, done)
    if torch._C._current_graph_task_id() == -1:
        _thread.keep(promise)
    elif torch._C._current_autograd_node() is not None:
        torch.autograd.Variable._execution_engine.queue_callback(promise.keep)
    else:  # At the end of the pass, where DDP with a static graph waits at once.
        promise.keep()
    return promise.future


class _Promise:
    """To complete a future, once."""

    def __init__(self, result: Callable[[], Any], done: Callable[[], bool]) -> None:
        self._result, self.done = result, done
        self._lock = threading.Lock()
        self._kept = False
        self.future = Future(self)

    def keep(self) -> None:
        """Waits for the call, and completes the future. Raises what the call raises."""
        try:
            value = self._result()
        except Exception as error:
            if self._is_first():
                self.future.set_exception(error)
            raise
        if self._is_first():
            self.future.set_result(value)

    def _is_first(self) -> bool:
        with self._lock:
            first, self._kept = not self._kept, True
            return first


class Future(_Future[Any]):
    """Of a promise, or what was chained to it."""

    def __init__(self, promise: _Promise) -> None:
        super().__init__()
        self._promise = promise

    def _keep(self) -> None:
        with suppress(Exception):  # which the future has
            self._promise.keep()

    def wait(self) -> Any:
        """Return the result; raise the error of the call."""
        self._keep()
        return super().wait()

    def done(self) -> bool:
        """Return whether it has completed. It does not wait."""
        if self._promise.done():
            self._keep()
        return super().done()  # type: ignore[no-any-return]

    def then(self, callback: Callable[[_Future[Any]], Any]) -> _Future[Any]:
        """Return a future of what `callback` returns, which is called with this one once it has completed."""
        chained = Future(self._promise)

        def call(completed: _Future[Any]) -> None:
            try:
                value = callback(completed)
            except Exception as error:
                chained.set_exception(error)
            else:
                chained.set_result(value)

        self.add_done_callback(call)
        return chained


class _Thread:
    """Keeps promises, in the order in which they were made."""

    def __init__(self) -> None:
        self._promises: queue.SimpleQueue[_Promise] = queue.SimpleQueue()
        self._start = threading.Lock()
        self._started = False

    def keep(self, promise: _Promise) -> None:
        self._promises.put(promise)
        with self._start:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="ronde futures", daemon=True).start()

    def _run(self) -> None:
        while True:
            promise = self._promises.get()
            with suppress(Exception):  # which the future has
                promise.keep()


_thread = _Thread()
