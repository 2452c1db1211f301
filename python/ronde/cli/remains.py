"""What a job may leave on this host, and what it would take along: files of MPI, flight records."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from .. import _core, _flight
from .processes import descendants

__all__ = ["Records", "Segments"]

_RECENTLY = 10.0  # seconds
_STARTING_SECONDS = 10.0  # in which ranks usually come to ronde.init


class _Times:
    """When to look at the processes of a job: `at_first` so many seconds always, then more and more
    seldom, as the ranks need the cores."""

    def __init__(self, at_first: float = 0.0) -> None:
        self._at_first, self._age, self._began = at_first, 1.0, time.monotonic()

    def due(self) -> bool:
        age = time.monotonic() - self._began
        if age < self._at_first:
            return True
        late = age > self._age
        while self._age < age:
            self._age *= 2
        return late


class Segments:
    """The files in /dev/shm that MPI was seen to have made on this host, for this job alone."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._times = _Times()

    def look(self) -> None:
        """At what the processes of the job have open now."""
        self._found.update(*map(_core.segment_names, descendants(os.getpid())))

    def look_at_times(self) -> None:
        """Files are made at the beginning."""
        if self._times.due():
            self.look()

    def remove(self) -> None:
        """What is left of them, when all processes have ended."""
        for path in self._found:
            with suppress(OSError):  # the job's exit status is what counts
                os.unlink(path)


class Records:
    """The flight records of the ranks of this host, open here so that they outlive the ranks."""

    def __init__(self) -> None:
        self._found: _flight.Records = {}
        self._times = _Times(_STARTING_SECONDS)

    def look_at_times(self, ranks: int) -> None:
        """Until those of so many ranks are found. The program may not use Ronde at all."""
        current = {key: each for key, each in self._found.items() if each.size > 0}
        if len(current) < len(self._found):  # ranks have called ronde.init once more
            self._found, self._times = current, _Times(_STARTING_SECONDS)
        if len(self._found) < ranks and self._times.due():
            self._found |= _flight.find(descendants(os.getpid()))

    def report(self) -> None:
        """What the ranks did, unless that was just said, or none was in a call."""
        ranks = [_flight.seen(each) for each in self._found.values()]
        if not any(each.under_way(asynchronous=False) for each in ranks):
            return
        first = min(
            self._found.values(), key=lambda each: each.rank
        )  # where the ranks claim it too
        if not first.claim(_RECENTLY):
            return
        for line in _flight.render(ranks, 3).splitlines():
            print(f"ronde: {line}", file=sys.stderr)
