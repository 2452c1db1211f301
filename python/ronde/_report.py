"""What the ranks of this machine do, on standard error: at a stall, at a bad end, and on request."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import Any

from . import _core, _flight
from .errors import UnavailableError

__all__ = ["Reporter"]

_LAST = 3  # calls of each rank, if there are few
_FEW = 8
_ONCE = 2.0  # seconds in which one report for the machine is enough


class Reporter:
    """Has the flight records of all ranks of this machine open, so that those of the dead are there too."""

    def __init__(self) -> None:
        self._job = ""
        self._readers: list[_core.FlightReader] = []
        self._before: tuple[int, Any] | None = None

    def open(self, job: str, paths: list[str]) -> None:
        """The records of the ranks of this machine, as far as there are any."""
        self._job = job
        for path in filter(None, paths):
            # In another container a path may lead nowhere, or elsewhere.
            with contextlib.suppress(UnavailableError):
                self._readers.append(_core.FlightReader(path))

    def text(self, reason: str) -> str:
        """A report, or nothing if another rank of this machine makes one."""
        job = [reader for reader in self._readers if reader.job == self._job]
        if not job or not job[0].claim(_ONCE):
            return ""
        ranks = [_flight.seen(reader) for reader in job]
        table = _flight.render(ranks, _LAST if len(ranks) <= _FEW else 0)
        return "".join(f"ronde: {line}\n" for line in [reason, *table.splitlines()])

    def report(self, reason: str) -> None:
        with contextlib.suppress(Exception):  # the program goes on without it
            write(self.text(reason))

    def listen(self, number: int) -> None:
        """From now on that signal asks for a report. `listen` and `close` are of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("RONDE_REPORT_SIGNAL needs ronde.init to be called by the main thread")
        if signal.getsignal(number) is None:  # and Python could not restore it
            name = signal.Signals(number).name
            raise ValueError(
                f"RONDE_REPORT_SIGNAL: {name} has a handler already, of native code; choose another"
            )
        self._before = number, signal.signal(number, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.report(f"{signal.Signals(number).name} asks for a report")

    def close(self) -> None:
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(*self._before)
            self._before = None


def write(report: str) -> None:
    """In one piece."""
    with contextlib.suppress(Exception):  # standard error may be closed
        sys.stderr.write(report)
        sys.stderr.flush()
