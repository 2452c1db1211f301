"""`ronde run`: a program on several ranks, with the launcher that belongs to the MPI in use.

Nothing is left behind: the ranks are watched from here too, because launchers differ in what they
do when one fails before it has started MPI, and orphans come to this process, which ends them.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from . import launch

__all__ = ["add_parser", "run"]

_GRACE_SECONDS = 5.0  # for a job that was told to end
_REPORT_SECONDS = 1.0  # for the other ranks to say what is wrong, after one has failed
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)

# Runs a rank and notes its failure in a file. A launcher alone is not enough: those of the MPICH
# family let the others wait for ever when a rank fails before MPI_Init, and return 9 both for exit(9)
# and for SIGKILL; Open MPI's waits for whatever a dead rank has left in the background.
# Signals are for the program: the shell outlives them.
_RANK = """
trap : INT TERM HUP USR1 USR2
"$@"
status=$?
[ $status -eq 0 ] || echo $status ${PMI_RANK:-$OMPI_COMM_WORLD_RANK} >>"$0"
exit $status
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "run",
        usage="ronde run -np N [--python PATH] [--verbose] PROGRAM [ARGUMENT ...]",
        help="run a program on several ranks",
        description="Runs a program with the launcher of the MPI that mpi4py uses here. If a rank "
        "fails, or on Ctrl-C, all of them are ended. The exit status is that of the rank that "
        "failed first, and 128 + N for signal N.",
    )
    parser.add_argument(
        "-np", "-n", "--np", dest="ranks", type=int, required=True, metavar="N", help="how many"
    )
    parser.add_argument(
        "--python", metavar="PATH", help="use the MPI of this Python, in another environment"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show the launcher's command before it runs"
    )
    parser.add_argument(
        "program",
        nargs=argparse.REMAINDER,
        metavar="PROGRAM",
        help="with its arguments; `python`, and what runs a .py file, is that Python",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        python = _python(args.python)
        program = _runnable(args.program, python)
        if args.ranks < 1:
            raise ValueError(f"-np {args.ranks}: a job needs at least 1 rank")
    except ValueError as error:
        print(f"ronde run: error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ronde-") as folder:
        failed = Path(folder, "failed")
        command, extra = launch.command(args.ranks, program, mpi=launch.find_mpi(python))
        if args.verbose:
            words = [f"{name}={shlex.quote(value)}" for name, value in extra.items()]
            print(" ".join([*words, shlex.join(command)]), file=sys.stderr, flush=True)
        command[-len(program) :] = ["/bin/sh", "-c", _RANK, str(failed), *program]
        return _watched(command, extra, failed)


def _python(path: str | None) -> str:
    if path is None:
        return sys.executable
    found = shutil.which(path)
    if found is None:
        raise ValueError(f"--python {path} is no program that can be run")
    return found


def _runnable(program: Sequence[str], python: str) -> list[str]:
    words = list(program[1:] if program[:1] == ["--"] else program)
    if not words:
        raise ValueError("no program to run, like `ronde run -np 2 python train.py`")
    name = words[0]
    if name in ("python", "python3"):  # that one, also where its environment is not on PATH
        return [python, *words[1:]]
    if name.endswith(".py") and os.path.isfile(name):
        return [python, *words]
    if shutil.which(name) is None:
        what = "is no program that can be run" if os.path.exists(name) else "does not exist"
        raise ValueError(f"{name} {what}")
    return words


# ---- the job -------------------------------------------------------------------------------------


def _start(command: Sequence[str], extra: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a launcher. `_end_all` ends it with all that it started."""
    libc = ctypes.CDLL(None)
    set_death_signal, set_subreaper = 1, 36  # of prctl(2)
    libc.prctl(set_subreaper, 1, 0, 0, 0)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def prepare() -> None:
        # The launcher is told to end where this process is killed and cannot tell it.
        libc.prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask - {*_ENDING, *_PASSED_ON, signal.SIGCHLD})

    environment = launch.environment() | extra
    return subprocess.Popen(command, env=environment, preexec_fn=prepare)


def _end_all() -> None:
    """Kills what this process started, and what those started."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (found := list(_descendants())) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants() -> Iterator[int]:
    """Living ones. Orphans among them are children of this process, the subreaper."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(parent), []).append(int(folder.name))
            if state in "ZX":
                zombies.add(int(folder.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    yield from (pid for pid in found[1:] if pid not in zombies)


def _watched(command: Sequence[str], extra: dict[str, str], failed: Path) -> int:
    """Runs the job to its end and returns the exit status."""
    with _blocked_signals() as signals:
        job = _start(command, extra)
        try:
            asked = _wait(job, failed, signals)
        finally:
            _end_all()
    status = job.wait()
    if asked is not None and status != 0:
        return 128 + asked
    with suppress(OSError, ValueError):
        return int(failed.read_text().split()[0])
    return status if status >= 0 else 128 - status


@contextmanager
def _blocked_signals() -> Iterator[set[signal.Signals]]:
    """Signals wait for `sigtimedwait`, but for those that were to be ignored, as by nohup."""
    signals = {
        number
        for number in (*_ENDING, *_PASSED_ON, signal.SIGCHLD)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield signals
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(job: subprocess.Popen[bytes], failed: Path, signals: set[signal.Signals]) -> int | None:
    """Until the launcher has ended, or has not although it should. Returns the signal it was asked
    to end with, if any."""
    asked = None
    deadline = float("inf")
    while job.poll() is None and time.monotonic() < deadline:
        received = signal.sigtimedwait(signals, 0.2)
        number = received.si_signo if received else 0
        if number in _PASSED_ON:
            job.send_signal(number)
        elif number in _ENDING and deadline < float("inf"):
            break
        elif received and number in _ENDING:
            asked, deadline = number, time.monotonic() + _GRACE_SECONDS
            if received.si_pid != 0:  # else it is from the terminal, and the launcher has it too
                job.send_signal(number)
        elif deadline == float("inf") and _age(failed) > _REPORT_SECONDS:
            status, *rank = failed.read_text().split()[:2]
            who = f"rank {rank[0]}" if rank else "a rank"
            print(f"ronde: {who} ended with status {status}; ending the others", file=sys.stderr)
            job.terminate()
            deadline = time.monotonic() + _GRACE_SECONDS
    return asked


def _age(file: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - file.stat().st_mtime
    return 0.0
