"""`ronde run`: a program on several ranks, with the launcher that belongs to the MPI in use.

Nothing is left behind: the ranks are watched from here too, because launchers differ in what they
do when one fails before it has started MPI, and orphans come to this process, which ends them. The
files that MPI makes in /dev/shm are removed if it has not done so itself.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import settings
from .._text import printable
from . import hosts, launch, remains
from .processes import descendants

__all__ = ["add_parser", "run"]

_GRACE_SECONDS = 5.0  # for a job that was asked to end
_REPORT_SECONDS = 1.0  # for the other ranks to say what is wrong, after one has failed
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)

# Runs a rank and notes how it went. A launcher alone is not enough: those of the MPICH family let the
# others wait forever when a rank fails before MPI_Init, return 9 both for exit(9) and for SIGKILL, and 0
# where they have lost their ranks; Open MPI's waits for whatever a dead rank has left in the background.
# Signals are for the program: the shell outlives them. Notes go to a file of this process that has no name,
# so that nothing is left of it however the job ends; on other hosts another process may have this number.
_RANK = """
trap : INT TERM HUP USR1 USR2
[ "$(readlink "$0")" = "$1" ] && here=yes || here=
shift
note() { [ ! "$here" ] || echo "$@" >>"$0"; }
note began 2>/dev/null
{ "$@" 2>&3 3>&-; status=$?; } 3>&2 2>/dev/null  # without the shell's "Terminated"
[ $status -eq 0 ] || note failed "$status" "${PMI_RANK:-$OMPI_COMM_WORLD_RANK}" 2>/dev/null
note ended 2>/dev/null
exit $status
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "run",
        usage="ronde run [-np N] [-H HOSTS] [OPTION ...] PROGRAM [ARGUMENT ...]",
        help="run a program on several ranks",
        description="Runs a program with the launcher of the MPI that mpi4py uses here, on this host, "
        "on those of -H or --hostfile, or on those of the Slurm allocation. If a rank fails, or on "
        "Ctrl-C, all of them are ended. The exit status is that of the rank that failed first, and "
        "128 + N for signal N.",
    )
    add = parser.add_argument
    add(
        "-np",
        "-n",
        "--np",
        dest="ranks",
        type=int,
        metavar="N",
        help="how many (default: all slots or cores)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-H", "--hosts", metavar="HOSTS", help="on these: node1:4,node2:4")
    where.add_argument(
        "--hostfile", metavar="FILE", help="on those of a file of lines `host slots=4` or `host:4`"
    )
    add("--python", metavar="PATH", help="use the MPI of this Python, in another environment")
    add("--per-host", type=int, metavar="N", help="so many ranks on each host")
    add("--oversubscribe", action="store_true", help="allow more ranks than slots")
    add(
        "-x",
        dest="variables",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="an environment variable for all ranks, besides RONDE_* and those of Python",
    )
    add("--interface", default="", metavar="NAME", help="network between the hosts, like eth0")
    add("--ssh-port", type=int, metavar="PORT", help="of the ssh servers of the hosts")
    add("--launcher-args", default="", metavar="WORDS", help="further options for the launcher")
    add("--verbose", action="store_true", help="show the launcher's command before it runs")
    add("--dry-run", action="store_true", help="show the launcher's command and do not run it")
    add(
        "program",
        nargs=argparse.REMAINDER,
        metavar="PROGRAM",
        help="with its arguments; `python`, and what runs a .py file, is that Python",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        hosts.refuse_within_job(os.environ)
        python = _python(args.python)
        program = _runnable(args.program, python)
        ranks, options = _planned(args)
    except ValueError as error:
        print(f"ronde run: error: {printable(error)}", file=sys.stderr)
        return 2
    mpi = launch.find_mpi(python)
    command, extra = launch.command(ranks, program, mpi=mpi, options=options)
    if args.verbose or args.dry_run:
        words = [f"{name}={shlex.quote(value)}" for name, value in extra.items()]
        file = sys.stdout if args.dry_run else sys.stderr
        print(" ".join([*words, shlex.join(command)]), file=file, flush=True)
    if args.dry_run:
        return 0
    notes = _Notes()
    noted = ["/bin/sh", "-c", _RANK, notes.path, notes.target, *program]
    command, extra = launch.command(ranks, noted, mpi=mpi, options=options)
    status = _watched(command, extra, notes)
    # Not after a signal, and not where it was a rank of this host.
    if (0 < status < 128 or status == 255) and not notes.failed:
        for host, said in launch.silent_hosts(options):
            print(f"ronde: host {host} did not answer: {printable(said)}", file=sys.stderr)
    return status


# ---- what is asked for ---------------------------------------------------------------------------


def _planned(args: argparse.Namespace) -> tuple[int, launch.Options]:
    """How many ranks, and how they are started. Raises `ValueError`."""
    for option, number in (("-np", args.ranks), ("--per-host", args.per_host)):
        if number is not None and number < 1:
            what = "a job" if option == "-np" else "a host"
            raise ValueError(f"{option} {number}: {what} needs at least 1 rank")
    if args.ssh_port is not None and not 1 <= args.ssh_port < 65536:
        raise ValueError(f"--ssh-port {args.ssh_port} is not a port")
    names = [name for _, name in socket.if_nameindex()]
    if args.interface and args.interface not in names:
        raise ValueError(f"--interface {args.interface}: this host has {', '.join(names)}")
    try:
        arguments = shlex.split(args.launcher_args)
    except ValueError as error:
        raise ValueError(f"--launcher-args {args.launcher_args!r}: {error}") from None
    variables = dict(map(_variable, args.variables))
    placed, slurm = _placed(args)
    ranks = sum(host.slots for host in placed) or args.ranks or _usable_cores()
    return ranks, launch.Options(
        hosts=placed,
        slurm=slurm,
        variables=variables,
        interface=args.interface,
        ssh_port=args.ssh_port,
        arguments=arguments,
    )


def _placed(args: argparse.Namespace) -> tuple[list[hosts.Host], bool]:
    """The hosts with their ranks, none for this host alone, and whether Slurm starts them."""
    given = _given(args)
    allocation = hosts.allocation(os.environ)
    ordered = None
    if allocation:
        ordered = hosts.within(given, allocation.hosts) if given else list(allocation.hosts)
    found = ordered or given
    if not found:
        if args.per_host is not None:
            raise ValueError("--per-host needs hosts, from -H, --hostfile or Slurm")
        return [], False
    ranks = args.ranks
    if ranks is None and allocation and not given and args.per_host is None:
        ranks = allocation.ranks
    slurm = ordered is not None and shutil.which("srun") is not None
    return hosts.place(found, ranks, args.per_host, args.oversubscribe), slurm


def _usable_cores() -> int:
    ranks = settings.cores()
    print(
        f"ronde run: one rank for each of {ranks} usable cores (-np N for another number)",
        file=sys.stderr,
    )
    return ranks


def _given(args: argparse.Namespace) -> list[hosts.Host]:
    if args.hosts is not None:
        try:
            return hosts.parse_hosts(args.hosts)
        except ValueError as error:
            raise ValueError(f"-H: {error}") from None
    if args.hostfile is None:
        return []
    try:
        text = Path(args.hostfile).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ValueError(f"--hostfile {args.hostfile}: {reason}") from None
    return hosts.parse_hostfile(text, args.hostfile)


def _variable(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name.isidentifier():
        raise ValueError(f"-x {text}: a variable is given as NAME or NAME=VALUE")
    if not equals and name not in os.environ:
        raise ValueError(f"-x {name}: there is no such variable here; give it as {name}=VALUE")
    return name, value if equals else None


def _python(path: str | None) -> str:
    if path is None:
        return sys.executable
    found = shutil.which(path)
    if found is None:
        raise ValueError(f"--python {path} is not a program that can be run")
    return found


def _runnable(program: Sequence[str], python: str) -> list[str]:
    words = list(program[1:] if program[:1] == ["--"] else program)
    if not words:
        raise ValueError("no program to run, like `ronde run -np 2 train.py`")
    name = words[0]
    if name in ("python", "python3"):  # that one, also where its environment is not on PATH
        return [python, *words[1:]]
    if name.endswith(".py") and os.path.isfile(name):
        return [python, *words]
    if shutil.which(name) is None:
        what = "is not a program that can be run" if os.path.exists(name) else "does not exist"
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
        # The launcher is asked to end where this process is killed and cannot do it.
        libc.prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask - {*_ENDING, *_PASSED_ON, signal.SIGCHLD})

    environment = launch.environment() | extra
    return subprocess.Popen(command, env=environment, preexec_fn=prepare)


def _end_all() -> None:
    """Kills what this process started, and what those started."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (found := list(descendants(os.getpid()))) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


class _Notes:
    """What the ranks of this host note: lines like `began`, `failed STATUS RANK` and `ended`."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create(f"ronde-{os.urandom(8).hex()}"), "rb")
        self.path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        self.target = os.readlink(self.path)  # what the path leads to here, and nowhere else

    def count(self, word: str) -> int:
        return sum(line[0] == word for line in self._lines())

    @property
    def failed(self) -> list[str]:
        """The status of the rank that failed first and, if the launcher has reported it, its rank."""
        return next((line[1:] for line in self._lines() if line[0] == "failed"), [])

    def _lines(self) -> list[list[str]]:
        self._file.seek(0)
        return [line.split() for line in self._file.read().decode().splitlines()]


def _watched(command: Sequence[str], extra: dict[str, str], notes: _Notes) -> int:
    """Runs the job to its end and returns the exit status."""
    segments, records = remains.Segments(), remains.Records()
    with _blocked_signals() as signals:
        job = _start(command, extra)
        try:
            asked = _wait(job, notes, signals, segments, records)
        finally:
            segments.look()
            if notes.failed and job.poll() is not None:
                records.report()
            _end_all()
            segments.remove()
            # Open MPI's launcher leaves it where it is killed.
            shutil.rmtree(Path(tempfile.gettempdir(), f"ompi.{job.pid}"), ignore_errors=True)
    status = job.wait()
    lost = notes.count("began") - notes.count("ended")
    if asked is not None and (status != 0 or lost):
        return 128 + asked
    if notes.failed:
        return int(notes.failed[0])
    if status == 0 and lost:
        print(f"ronde: the launcher ended before {lost} of its ranks", file=sys.stderr)
        return 1
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


def _wait(
    job: subprocess.Popen[bytes],
    notes: _Notes,
    signals: set[signal.Signals],
    segments: remains.Segments,
    records: remains.Records,
) -> int | None:
    """Until the launcher has ended, or has not although it should. Returns the signal it was asked
    to end with, if any."""
    asked = None
    deadline = report = float("inf")
    while job.poll() is None and time.monotonic() < deadline:
        segments.look_at_times()
        records.look_at_times(notes.count("began"))
        received = signal.sigtimedwait(signals, 0.2)
        number = received.si_signo if received else 0
        if number in _PASSED_ON:
            job.send_signal(number)
        elif number in _ENDING and deadline < float("inf"):
            break
        elif received and number in _ENDING:
            asked, deadline = number, time.monotonic() + _GRACE_SECONDS
            segments.look()
            if received.si_pid != 0:  # else it is from the terminal, and the launcher has it too
                job.send_signal(number)
        elif report == float("inf") and notes.failed:
            report = time.monotonic() + _REPORT_SECONDS
        elif deadline == float("inf") and time.monotonic() > report:
            status, *rank = notes.failed
            who = f"rank {rank[0]}" if rank else "a rank"
            print(f"ronde: {who} ended with status {status}; ending the others", file=sys.stderr)
            records.report()
            segments.look()
            job.terminate()
            deadline = time.monotonic() + _GRACE_SECONDS
    return asked
