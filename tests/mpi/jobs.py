"""Starts real jobs, under the MPI of this environment."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ronde.cli import launch

PROGRAMS = Path(__file__).parent / "programs"
_TRIES = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    status: int
    output: str  # of all ranks, stdout and stderr together


@functools.cache
def mpi() -> launch.Mpi:
    return launch.find_mpi()


def _launched_by(launcher: str) -> launch.Mpi:
    """The library of this environment, and the launcher of another."""
    answer = subprocess.run([launcher, "--version"], capture_output=True, text=True).stdout
    vendor = "Open MPI" if "Open MPI" in answer else "MPICH"
    return dataclasses.replace(mpi(), vendor=vendor, launcher=launcher)


@contextmanager
def started(
    ranks: int, program: str, *arguments: str, launcher: str = "", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A job of programs/`program` under way."""
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    with started_command(ranks, command, launcher=launcher, **variables) as process:
        yield process


@contextmanager
def started_command(
    ranks: int, command: list[str], *, launcher: str = "", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A job under way, in a session of its own so that nothing of it can be missed in the end."""
    command, extra = launch.command(
        ranks, command, mpi=_launched_by(launcher) if launcher else mpi()
    )
    process = subprocess.Popen(
        command,
        env=launch.environment() | extra | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Only the launcher is surely in this session: ranks of Open MPI make groups of their own.
        for pid in ranks_of(process.pid):
            _kill(pid)
        _kill(process.pid)
        process.wait()
        if process.stdout:
            process.stdout.close()


def run(
    ranks: int,
    program: str,
    *arguments: str,
    launcher: str = "",
    timeout: float = 120,
    **variables: str,
) -> Job:
    """Runs programs/`program` on so many ranks to its end. `timeout` is there for hangs."""

    def once() -> Job:
        with started(ranks, program, *arguments, launcher=launcher, **variables) as process:
            output, _ = process.communicate(timeout=timeout)
            return Job(process.returncode, output)

    return until_begun(once, lambda job: job.output)


def until_begun(run: Callable[[], T], output: Callable[[T], str]) -> T:
    """Runs a job again if its launcher gave up before a rank was there: once in some thousand starts,
    `mpirun` of Open MPI 5 finds no address to listen at (github.com/lfortran/lfortran/issues/8610)."""
    for _ in range(_TRIES - 1):
        job = run()
        if "PMIx server's listener thread failed to start" not in output(job):
            return job
    return run()


def ranks_of(launcher: int) -> list[int]:
    """The processes below a launcher."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [launcher]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def commands_of(launcher: int) -> list[str]:
    """The command lines of the processes below a launcher."""
    return [command for command in map(command_of, ranks_of(launcher)) if command]


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def segments_of(pid: int) -> set[str]:
    """The files of shared memory that a process has mapped and that still have a name; none if it has
    ended."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {line.split()[-1] for line in maps if "/dev/shm/" in line and "(deleted)" not in line}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    """Those of the processes that still live after that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
