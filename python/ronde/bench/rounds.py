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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from .. import settings
from ..cli import launch
from ..errors import RondeError
from .cells import Job, Row

__all__ = ["Comparison", "Entrant", "compare"]

_STANDALONE = Path(__file__).with_name("standalone.py")
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10.0

# With more ranks than cores a waiting rank has to let others run, which not every library does by
# itself. Each looks at its own variables only.
_YIELDING = {
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "true",
}


class Entrant(NamedTuple):
    """A library in an environment."""

    label: str
    kind: str  # one of peers.KINDS
    python: str


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
    patience: float = 300.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measures the job `rounds` times through every entrant, the first of which is Ronde.

    A peer that fails, or measures nothing for `patience` seconds, is left out from then on, with the
    reason. Raises `RondeError` if Ronde itself fails.
    """
    result = Comparison()
    for number in range(rounds):
        first = number % len(entrants)  # nobody always runs after the same neighbour
        for entrant in [*entrants[first:], *entrants[:first]]:
            if entrant.label in result.left_out:
                continue
            head = f"round {number + 1} of {rounds}: {entrant.label}"
            why_not = _launch(
                entrant, job, ranks, patience, result, number, lambda t, h=head: progress(h + t)
            )
            if why_not and entrant.kind == "ronde":
                raise RondeError(f"the launch with ronde failed:\n{why_not}")
            if why_not:
                result.left_out[entrant.label] = why_not
    return result


def _launch(
    entrant: Entrant,
    job: Job,
    ranks: int,
    patience: float,
    result: Comparison,
    number: int,
    progress: Callable[[str], None],
) -> str:
    """Adds the rows of a launch to the result. Returns why it failed, or nothing."""
    python = shutil.which(entrant.python)
    if python is None:
        return f"{entrant.python} is no program that can be run"
    cells = job.cells
    if entrant.kind != "ronde":  # shared buffers are Ronde's alone
        cells = list(dict.fromkeys(replace(cell, buffers="plain") for cell in cells))
        cells = [cell for cell in cells if cell.collective != "memory"]
        job = replace(job, cells=cells, bound=False)
    with tempfile.TemporaryDirectory(prefix="ronde-bench-") as folder:
        task, results, log = (Path(folder, name) for name in ("job.json", "rows", "log"))
        task.write_text(json.dumps(asdict(job)))
        words = [python, str(_STANDALONE), entrant.kind, str(task), str(results)]
        with _started(entrant.kind, python, words, ranks, log) as processes:
            reader = _Reader(results)
            since = time.monotonic()
            progress("")
            while not reader.ended and all(process.poll() is None for process in processes):
                time.sleep(_POLL_SECONDS)
                new = reader.read()
                if new:
                    since = time.monotonic()
                    progress(f", {len(reader.rows)} of {len(cells)} cells")
                elif time.monotonic() - since > patience:
                    break
            late = time.monotonic() - since > patience
            _wait(processes)
            statuses = [process.returncode for process in processes]
        reader.read()
        result.rows += [replace(row, peer=entrant.label, round=number) for row in reader.rows]
        if reader.about:
            result.about[entrant.label] = reader.about
        if reader.ended:
            return ""
        if late:
            return f"nothing was measured for {patience:.0f} s"
        return _reason(log.read_text(errors="replace"), max(statuses, key=abs))


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


@contextmanager
def _started(
    kind: str, python: str, words: list[str], ranks: int, log: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of a launch: the launcher, or the ranks where there is none. None outlives it."""
    environment = launch.environment()
    if ranks > settings.cores():
        environment = _YIELDING | environment
    if kind == "gloo":
        one_machine = {"GLOO_SOCKET_IFNAME": "lo", "GLOO_STORE": str(log.with_name("store"))}
        variables = [
            {"RANK": str(rank), "WORLD_SIZE": str(ranks)} | one_machine for rank in range(ranks)
        ]
        commands = [words] * ranks
    else:
        start = [sys.executable, "-m", "ronde", "run", "-np", str(ranks), "--python", python]
        variables, commands = [{}], [[*start, *words]]
    libc = ctypes.CDLL(None)
    set_death_signal = 1  # of prctl(2): also if this process is killed

    def prepare() -> None:
        libc.prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)

    processes: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as output:
        try:
            for command, own in zip(commands, variables, strict=True):
                processes.append(
                    subprocess.Popen(
                        command,
                        env=environment | own,
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
        time.sleep(_POLL_SECONDS / 10)


def _reason(log: str, status: int) -> str:
    """What the ranks have said last, in a line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*", line)]
    return (errors or lines or [f"it ended with status {status}"])[-1]
