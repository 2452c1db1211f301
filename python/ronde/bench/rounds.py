"""The same cells through several libraries, in short launches that alternate.

One library per launch: a process holds one MPI, and the threads of one library disturb another. Several
rounds, because a machine is not the same from one minute to the next: what is compared are two launches
of one round, and the spread over the rounds says how far to trust it.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .. import settings
from .._text import printable
from ..cli import launch
from ..errors import RondeError
from .cells import Job, Row

__all__ = ["Comparison", "Entrant", "compare"]

_STANDALONE = Path(__file__).with_name("standalone.py")
_POLL_SECONDS = 0.2  # seldom: the ranks need the cores
_PATIENCE_SECONDS = 300.0
_GRACE_SECONDS = 10.0
_LAST_LINES = 5  # of a launcher, whose sentences take several

# With more ranks than cores a waiting rank has to let others run, which not every library does by
# itself. Each looks at its own variables only.
_YIELDING = {
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "true",
}


class Entrant(NamedTuple):
    """A library in an environment."""

    label: str  # "ronde" is Ronde's alone
    kind: str  # one of peers.KINDS
    python: str

    @property
    def is_ronde(self) -> bool:
        return self.label == "ronde"


@dataclass
class Comparison:
    """All that was measured."""

    rows: list[Row] = field(default_factory=list)
    about: dict[str, dict[str, str]] = field(default_factory=dict)  # by label
    left_out: dict[str, str] = field(default_factory=dict)  # why, by label


def compare(
    entrants: Sequence[Entrant],
    job: Job,
    ranks: int,
    rounds: int,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measures the job `rounds` times through every entrant, one of which is Ronde.

    A peer that fails, or measures nothing for five minutes, is left out from then on, with the reason.
    `progress` is called with what is under way. Raises `RondeError` if Ronde itself fails.
    """
    result = Comparison()
    for number in range(rounds):
        first = number % len(entrants)  # nobody always runs after the same neighbour
        for entrant in [*entrants[first:], *entrants[:first]]:
            if entrant.label in result.left_out:
                continue
            head = f"round {number + 1} of {rounds}, {entrant.label}"
            launched = _launch(entrant, job, ranks, partial(_tell, progress, head))
            result.rows += [replace(row, peer=entrant.label, round=number) for row in launched.rows]
            if launched.about:
                result.about[entrant.label] = launched.about
            if launched.why_not and entrant.is_ronde:
                raise RondeError(f"the launch with ronde failed:\n{launched.why_not}")
            if launched.why_not:
                result.left_out[entrant.label] = launched.why_not
    return result


def _tell(progress: Callable[[str], None], head: str, done: int, of: int) -> None:
    progress(f"{head}: {done} of {of} cells")


@dataclass
class _Launched:
    """What came out of one launch."""

    rows: list[Row] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    why_not: str = ""


def _launch(
    entrant: Entrant, job: Job, ranks: int, progress: Callable[[int, int], None]
) -> _Launched:
    python = shutil.which(entrant.python)
    if python is None:
        return _Launched(why_not=f"{entrant.python} is not a program that can be run")
    if not entrant.is_ronde:
        job = _of_a_peer(job)
    with tempfile.TemporaryDirectory(prefix="ronde-bench-") as folder:
        task, results, log = (Path(folder, name) for name in ("job.json", "rows", "log"))
        task.write_text(json.dumps(asdict(job)))
        reader = _Reader(results)
        program = [python, str(_STANDALONE), entrant.kind, str(task), str(results)]
        commands = _commands(entrant.kind, program, ranks, Path(folder, "store"))
        with _started(commands, _environment(ranks), log) as processes:
            late = not _follow(reader, processes, len(job.cells), progress)
        reader.read()
        if late:
            why_not = f"nothing was measured for {_PATIENCE_SECONDS:.0f} s"
        else:
            statuses = [process.returncode for process in processes]
            why_not = "" if reader.ended else _reason(log.read_text(errors="replace"), statuses)
        return _Launched(reader.rows, reader.about, why_not)


def _of_a_peer(job: Job) -> Job:
    """The job without what is Ronde's alone."""
    cells = [cell.exact for cell in job.cells if cell.collective != "memory"]
    return replace(job, cells=list(dict.fromkeys(cells)), bound=False)


def _follow(
    reader: _Reader,
    processes: Sequence[subprocess.Popen[bytes]],
    cells: int,
    progress: Callable[[int, int], None],
) -> bool:
    """Until the job is done or a process has ended. False if nothing moves any more."""
    since = time.monotonic()
    progress(0, cells)
    while not reader.ended and all(process.poll() is None for process in processes):
        time.sleep(_POLL_SECONDS)
        if reader.read():
            since = time.monotonic()
            progress(len(reader.rows), cells)
        elif time.monotonic() - since > _PATIENCE_SECONDS:
            return False
    _wait(processes)
    return True


class _Reader:
    """What rank 0 has written so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self.about: dict[str, str] = {}
        self.rows: list[Row] = []
        self.ended = False

    def read(self) -> bool:
        """Whether there is something new."""
        if not self._file.exists():
            return False
        with self._file.open("rb") as file:
            file.seek(self._offset)
            text, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(text) + len(newline)
        for line in text.splitlines():
            self._take(json.loads(line))
        return bool(text)

    def _take(self, what: dict[str, Any]) -> None:
        if "row" in what:
            self.rows.append(Row.of(what["row"]))
        self.about = what.get("about", self.about)
        self.ended = self.ended or "end" in what


def _environment(ranks: int) -> dict[str, str]:
    crowded = ranks > settings.cores()
    return (_YIELDING if crowded else {}) | launch.environment()


def _commands(kind: str, program: list[str], ranks: int, store: Path) -> list[list[str]]:
    """What is to be started: a launcher, or the ranks themselves where none is needed."""
    if kind != "gloo":
        start = launch.ronde("run", "-np", str(ranks), "--python", program[0])
        return [[*start, *program]]
    variables = [f"GLOO_STORE={store}", f"WORLD_SIZE={ranks}", "GLOO_SOCKET_IFNAME=lo"]
    return [["env", *variables, f"RANK={rank}", *program] for rank in range(ranks)]


@contextmanager
def _started(
    commands: Sequence[Sequence[str]], environment: dict[str, str], log: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that do not outlive the context. What they say goes to the log."""
    libc = ctypes.CDLL(None)
    set_death_signal = 1  # of prctl(2): also if this process is killed

    def prepare() -> None:
        libc.prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)

    processes: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as output:
        try:
            for command in commands:
                processes.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        preexec_fn=prepare,
                    )
                )
            yield processes
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
            _wait(processes)
            for process in processes:
                process.kill()
                process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """For processes that are about to end."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.01)


def _reason(log: str, statuses: Sequence[int]) -> str:
    """What the ranks or their launcher have said last, in a line."""
    lines = [line.strip() for line in log.splitlines() if re.search(r"\w", line)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    ours = [line.removeprefix("ronde: ") for line in lines if line.startswith("ronde: ")]
    status = next((each for each in statuses if each), 0)
    found = errors or ours or [" ".join(lines[-_LAST_LINES:])]
    return printable(found[-1] or f"it ended with status {status} before the job was done")
