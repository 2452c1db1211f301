"""How the command of this folder, and the programs beside it, start others, which end with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

_FOLDER = Path(__file__).resolve().parent
PATIENCE = 30.0  # seconds in which a command may clean up
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """From now on the signals that end a process raise `SystemExit`, so that it cleans up; but for those
    that were to be ignored, as by nohup."""
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _exit)


def _exit(signum: int, _: FrameType | None) -> None:
    for number in _ENDING:  # nothing interrupts the cleaning up
        signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + signum)


def run(command: Sequence[str], environment: dict[str, str], stdout: IO[str] | None = None) -> int:
    """Runs a command to its end and returns its exit status, 128 + N for signal N. If an exception ends
    this call, the command is asked to end, and has ended, if need be by force."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout)
    try:
        status = process.wait()
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        process.wait()
    return status if status >= 0 else 128 - status


def bound(*command: str) -> list[str]:
    """The command, which is asked to end also where this process is killed and cannot do it."""
    return ["setpriv", "--pdeathsig", "TERM", *command]


def on_hosts(hosts: int, rate: str, per_host: int = 1, python: str = sys.executable) -> list[str]:
    """What stands before a program that runs on all ranks of so many emulated hosts."""
    command = [python, str(_FOLDER), "run", "--hosts", str(hosts), "--rate", rate]
    return [*command, "--per-host", str(per_host), "--"]


def reported(start: Sequence[str], program: Sequence[str]) -> Any:
    """What rank 0 of a program writes, as JSON, to a file whose name is added to its words. `start` is what
    stands before it; modules beside this folder can be imported. Raises `SystemExit` if the job fails."""
    paths = [str(_FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory(prefix="ronde-") as folder:
        file = Path(folder, "report.json")
        status = run(bound(*start, *program, str(file)), environment)
        if status:
            raise SystemExit(status)
        return json.loads(file.read_text())
