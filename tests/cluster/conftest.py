"""Emulated hosts for the tests of this folder, or the reason why there are none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jobs
import pytest
from ronde.errors import UnavailableError

from benchmarks.cluster import hosts

PROGRAMS = Path(__file__).parent / "programs"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[hosts.Cluster]:
    """Three hosts."""
    try:
        hosts.require()
        jobs.mpi()
    except (hosts.Unavailable, UnavailableError) as error:
        pytest.skip(str(error))
    with hosts.cluster(3, "1gbit") as made:
        yield made


@pytest.fixture
def run(cluster: hosts.Cluster) -> Run:
    """Runs programs/`program`, or a module (`-m`), with so many ranks on each host, to its end."""

    def run(ranks: int, per_host: int, program: str, *arguments: str, **variables: str) -> object:
        path = program if program == "-m" else str(PROGRAMS / program)
        command, environment = cluster.launcher(
            ranks, per_host, [sys.executable, path, *arguments], jobs.mpi()
        )
        return subprocess.run(
            command,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=100,
        )

    return run
