"""How a process ends without hanging the others.

MPI_Finalize waits for all ranks, so a rank that leaves with an error would hang those that still work,
and itself. Therefore an uncaught exception ends the whole job, and so does the exit of a process in which
Ronde has failed. The orderly end of a program is a call that all ranks make together: `ronde.shutdown`,
made here if the program has not made it.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn

from . import _core, _metrics, _report
from .errors import MismatchError

__all__ = ["Job", "begin", "end", "give_up", "was_forked"]


@dataclass
class Job:
    """A use of MPI that other ranks depend on, from the beginning of `init` to the end of `shutdown`."""

    MPI: Any
    rank: int  # in MPI's world, which is what ends with the job
    size: int
    pid: int
    control: _core.Control | None = None  # once there is one
    reporter: _report.Reporter | None = None  # likewise
    metrics: list[_metrics.Server | _metrics.File] = field(default_factory=list)
    failure: str = ""  # of `init`, if it left ranks waiting

    def why_failed(self) -> str:
        return self.failure or (self.control.failure if self.control else "")

    def report(self, reason: str) -> str:
        """What the ranks of this machine do, unless another of them says it."""
        return self.reporter.text(reason) if self.reporter else ""


_jobs: list[Job] = []  # under way or failed, the latest last
_leave: Callable[[], None] | None = None


def begin(MPI: Any, leave: Callable[[], None]) -> Job:
    """From now on the end of this process is minded. `leave` is the orderly end."""
    global _leave
    world = MPI.COMM_WORLD
    job = Job(MPI, world.Get_rank(), world.Get_size(), os.getpid())
    _jobs.append(job)
    if _leave is None:
        _leave = leave
        _install_excepthook()
        atexit.register(_at_exit)
        _core.find_finalize(MPI.__file__)
        os.register_at_fork(after_in_child=_core.skip_finalize)
    return job


def was_forked() -> bool:
    """Whether this process is a copy of one that used Ronde."""
    return any(job.pid != os.getpid() for job in _jobs)


def end(job: Job) -> None:
    """The job has ended in order. Whatever failed before it, the ranks have come together since."""
    del _jobs[: _jobs.index(job) + 1]


def give_up(reason: str, code: int) -> None:
    """Ends the whole job with this exit status, where other ranks may be waiting for this process."""
    job = _responsible()
    if job is not None:
        _abort(job, reason, code, shows=False)


def _responsible() -> Job | None:
    """The job whose other ranks may be waiting for this process, if there is one."""
    own = [job for job in _jobs if job.pid == os.getpid() and job.size > 1]
    return own[-1] if own else None


def _install_excepthook() -> None:
    previous = sys.excepthook

    def end_job(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        job = _responsible()
        if job is None or hasattr(sys, "ps1") or sys.flags.interactive:
            previous(kind, error, trace)
            return
        if isinstance(sys.stderr, io.StringIO) and sys.__stderr__:  # torch would print it later
            sys.stderr = sys.__stderr__
        reason = _reason(error)
        with contextlib.suppress(Exception):  # standard error may be closed
            if previous is not sys.__excepthook__:
                previous(kind, error, trace)
            elif _is_shown_elsewhere(job, reason):
                _say_the_same(job, reason)
            else:
                # In one piece, so that the tracebacks of several ranks do not mix.
                lines = traceback.format_exception(kind, error, trace)
                sys.stderr.write(f"ronde: rank {job.rank} ends the job:\n{''.join(lines)}")
        # Of calls that differ the error says all.
        shows = not issubclass(kind, MismatchError)
        _abort(job, reason, 130 if kind is KeyboardInterrupt else 1, shows)

    sys.excepthook = end_job


def _reason(error: BaseException) -> str:
    """`ValueError: no such file`; `KeyboardInterrupt`, which has no text."""
    return ": ".join(filter(None, (type(error).__name__, str(error))))


def _is_shown_elsewhere(job: Job, reason: str) -> bool:
    """Whether another rank has shown this error, as it does before it reports to the others that it gives up.

    Where several ranks fail alike, the lowest shows the error: the higher a rank, the longer it listens.
    """
    reporter = re.match(r"(?:\w+: )?rank (\d+) (?:gave up|has waited)", reason)
    if reporter or job.control is None:
        return reporter is not None and int(reporter[1]) != job.rank
    deadline = time.monotonic() + min(0.05 * job.rank, 1.0)
    while not (notice := job.control.listen()) and time.monotonic() < deadline:
        time.sleep(0.005)
    their_reason = notice.partition(" gave up: ")[2]  # which may have been cut
    return their_reason != "" and reason.startswith(their_reason)


def _say_the_same(job: Job, reason: str) -> None:
    """All of it but the traceback, in one line: the output of the other rank may be elsewhere."""
    sys.stderr.write(f"ronde: rank {job.rank} ends too: {' '.join(reason.split())}\n")


def _at_exit() -> None:
    if was_forked() or any(job.MPI.Is_finalized() for job in _jobs):
        return
    job = _responsible()
    failure = job.why_failed() if job is not None else ""
    if not failure:
        try:
            _leave_with_all(job)
            return
        except BaseException as error:
            failure = _reason(error)
    if job is not None:
        _say(f"rank {job.rank} ends the job: {failure}")
        _abort(job, failure, 1)


def _leave_with_all(job: Job | None) -> None:
    """The program of this rank has ended well. Ranks that still make calls raise an error that names
    this one; they may live on with it, so this rank waits until all have come to their end."""
    assert _leave is not None
    reported = False
    while True:
        try:
            _leave()
            return
        except MismatchError as error:
            if not reported and job is not None:
                _say(f"rank {job.rank} has finished, and others still work: {error}")
            reported = True


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # standard error may be closed
        print(f"ronde: {text}", file=sys.stderr)


def _abort(job: Job, reason: str, code: int, shows: bool = True) -> NoReturn:
    """Ends all processes of the job, once what there is to say has been reported."""
    try:
        with contextlib.suppress(Exception):
            # Before the others know: until then they are where it happened.
            report = job.report(f"rank {job.rank} ends the job")
            if job.control is not None:
                job.control.fail(reason)
                job.control.flight_record.timeline.stop()  # so that its end is not missing
            if shows:
                _report.write(report)
            for each in job.metrics:
                each.close()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # either may be closed
                stream.flush()
        # The launcher ends the others roughly: give those that have an error to show a moment for it.
        time.sleep(0.2)
        _core.remove_segment_names()
    finally:
        job.MPI.COMM_WORLD.Abort(code)
        os._exit(code)
