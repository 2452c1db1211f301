"""Works: collectives of `torch.distributed` that are under way."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from .futures import future_of
from .point_to_point import Message

__all__ = ["Pending", "Then", "Together", "Work"]

_NO_TIMEOUT = timedelta(0)


class Pending(Protocol):
    """What a Work waits for: a message, a call with what follows it, or several.

    When it is `done`, all outputs are written.
    """

    def done(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> Any: ...


class Together:
    """Several, as one."""

    def __init__(self, pending: Sequence[Pending]) -> None:
        self._pending = pending

    def done(self) -> bool:
        return all(each.done() for each in self._pending)

    def wait(self, timeout: float | None = None) -> None:
        for each in self._pending:
            each.wait(timeout)


class Then:
    """A call, and what is done with its result, once."""

    def __init__(self, pending: Pending, finish: Callable[[Any], object]) -> None:
        self._pending, self._finish = pending, finish
        self._lock = threading.Lock()
        self._finished = False
        self._error: Exception | None = None

    def done(self) -> bool:
        if not self._pending.done():
            return False
        with suppress(Exception):  # which `wait` raises again
            self.wait()
        return True

    def wait(self, timeout: float | None = None) -> None:
        result = self._pending.wait(timeout)
        with self._lock:
            if not self._finished:
                self._finished = True
                try:
                    self._finish(result)
                except Exception as error:
                    self._error = error
        if self._error is not None:
            raise self._error


# Works that C++ may wait for. That of torch before 2.7 does not keep the part in Python of a work that it has
# got, and waits for ever without. (It never waits for messages, which are `Message`.)
_must_keep = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)
_kept: dict[Work, int] = {}  # and how many waits for it are to come
_once: dict[Work, None] = {}  # those of them that were waited for, and not for the last time
_FEW, _MANY, _ALL = 16, 10_000, 1 << 30


def _keep(work: Work, waits: int) -> None:
    _kept[work] = waits
    if len(_kept) == _MANY:
        warnings.warn(
            f"{_MANY} calls of torch.distributed were not waited for, and keep their tensors until they are, "
            f"as torch {torch.__version__} needs; from 2.7 on it does not",
            stacklevel=5,
        )


def _let_go(work: Work, waits: int) -> None:
    """After so many waits. Functional collectives wait for each tensor of a coalesced call; others wait for
    it once, and cannot be told from them: of theirs the last few are kept."""
    left = _kept.get(work, 0) - waits
    if left <= 0:
        _kept.pop(work, None)
        _once.pop(work, None)
        return
    _kept[work], _once[work] = left, None
    if len(_once) > _FEW:
        _let_go(next(iter(_once)), _ALL)


class Work(dist.Work):
    """A call under way. Its tensors hold the result once `wait` has returned.

    Args:
        pending: what has been submitted.
        tensors: those of its result.
        seconds: how long `wait` waits if it is not told: the timeout of the process group.
        waits: how often C++ may wait for it.
    """

    def __init__(
        self, pending: Pending, tensors: Any, seconds: float | None, waits: int = 1
    ) -> None:
        super().__init__()
        self.pending, self._tensors, self._seconds = pending, tensors, seconds
        self._future: Any = None
        if _must_keep and not isinstance(pending, Message):
            _keep(self, waits)

    def wait(self, timeout: timedelta = _NO_TIMEOUT) -> bool:
        """Return True once the call has ended.

        Raises:
            DistBackendError: it has not ended within `timeout`. It goes on.
            RondeError: it failed. This is a `RuntimeError` too.
        """
        if _must_keep:
            _let_go(self, 1)
        seconds = self._seconds if timeout is _NO_TIMEOUT else timeout.total_seconds()
        try:
            self.pending.wait(seconds or self._seconds)
        except TimeoutError as error:
            raise dist.DistBackendError(
                f"{error} (the timeout of the call or of its group)"
            ) from None
        return True

    def drop(self) -> None:
        """Nobody will wait for this one: another has its call."""
        _let_go(self, _ALL)

    def synchronize(self) -> None:
        """Wait, as `wait` does."""
        self.wait()

    def is_completed(self) -> bool:
        """Return whether the call has ended, with a result or an error. It does not wait."""
        is_done = self.pending.done()
        if is_done:  # C++ does not ask, so somebody in Python has this work
            _let_go(self, _ALL)
        return is_done

    def exception(self) -> BaseException | None:
        """Return the error of a call that has ended with one; None otherwise."""
        if self.is_completed():
            try:
                self.wait()
            except Exception as error:
                return error
        return None

    def is_success(self) -> bool:
        """Return whether the call has ended without an error."""
        return self.is_completed() and self.exception() is None

    def result(self) -> Any:
        """Return the tensors of the result. It waits for them."""
        self.wait()
        return self._tensors

    def source_rank(self) -> int:
        """Return the rank in the group that the message of a receive came from."""
        source: int | None = getattr(self.pending, "source", None)
        if source is None:
            raise RuntimeError("only a receive that has ended has a source rank")
        return source

    _source_rank = source_rank

    def get_future(self) -> Any:
        """Return a `torch.futures.Future` that completes with the tensors when the call ends."""
        _let_go(self, _ALL)
        if self._future is None:
            self._future = future_of(self.result, self.is_completed)
        return self._future
