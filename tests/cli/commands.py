"""Runs `ronde` as users do: by itself, or with a launcher before it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jobs
from ronde.cli import launch

RONDE = [sys.executable, "-m", "ronde"]
TIMEOUT = 120  # for hangs


def ronde(
    *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return _run([*RONDE, *words], cwd, env)


def launched(
    ranks: int, *words: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """As `mpirun -n RANKS ronde ...`."""
    command, extra = launch.command(ranks, [*RONDE, *words], mpi=jobs.mpi())
    return _run(command, cwd, launch.environment() | extra | variables)


def _run(
    command: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
) -> subprocess.CompletedProcess[str]:
    return jobs.until_begun(
        lambda: subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        ),
        lambda result: result.stdout + result.stderr,
    )


def figures(output: str) -> list[list[str]]:
    """The words of the lines that are no comment."""
    return [line.split() for line in output.splitlines() if line and not line.startswith("#")]
