"""MPI makes files in /dev/shm. However a program ends that uses Ronde, they are gone.

Other jobs may run on this machine: looked at are only files that a process of the job had open.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jobs
import pytest
from ronde.cli import launch

SEGMENTS = str(jobs.PROGRAMS / "segments.py")


def names(output: str) -> set[str]:
    """What programs/segments.py says that MPI has made."""
    return {line.split()[-1] for line in output.splitlines() if "has the segment" in line}


def left(paths: set[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def alone(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Without a launcher."""
    return subprocess.run(
        [sys.executable, SEGMENTS, *arguments],
        env=launch.environment() | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


ENDS = ("ends", "raises", "aborts", "dies")


@pytest.mark.parametrize("end", ENDS)
def test_a_job_leaves_nothing(end: str) -> None:
    job = jobs.run(3, "segments.py", end)
    assert (job.status == 0) == (end == "ends"), job.output
    assert left(names(job.output)) == []


def test_a_job_that_is_killed_with_its_launcher_leaves_nothing() -> None:
    with jobs.started(3, "segments.py", "works") as process:
        assert process.stdout is not None
        said = ""
        while "under way" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        below = jobs.ranks_of(process.pid)
        for pid in (process.pid, *below):  # the launcher first: nobody is there to clean up
            os.kill(pid, signal.SIGKILL)
        assert jobs.wait_until_gone(below, 10) == []
    assert left(names(said)) == []


@pytest.mark.parametrize("end", ENDS)
def test_a_program_without_a_launcher_leaves_nothing(end: str) -> None:
    result = alone(end)
    assert (result.returncode == 0) == (end == "ends"), result.stderr
    assert left(names(result.stdout)) == []


def test_a_program_of_the_wrong_launcher_leaves_nothing() -> None:
    result = alone("ends", OMPI_COMM_WORLD_SIZE="8")
    assert "launcher and library do not belong together" in result.stderr
    assert left(names(result.stdout)) == []


def test_ranks_that_give_up_while_mpi_starts_leave_nothing() -> None:
    """The last rank never starts MPI, so the others are inside MPI_Init until their time is over."""
    haste = {"RONDE_STALL_TIMEOUT": "3"}
    found: set[str] = set()
    with jobs.started(3, "trouble.py", "never_starts", **haste) as process:
        while process.poll() is None:
            found.update(*map(jobs.segments_of, jobs.ranks_of(process.pid)))
            time.sleep(0.05)
        assert process.stdout is not None
        assert "gave up after 3.0 s in MPI_Init" in process.stdout.read()
    assert left(found) == []


def test_asking_for_the_library_leaves_nothing(tmp_path: Path) -> None:
    """The question is put to a Python that also says what it has mapped in the end."""
    python, maps = tmp_path / "python", tmp_path / "maps"
    python.write_text(
        f"""#!/bin/sh
code="$2
with open('{maps}', 'w') as file: file.write(open('/proc/self/maps').read())"
shift 2
exec '{sys.executable}' -c "$code" "$@"
"""
    )
    python.chmod(0o755)
    assert launch.find_library(str(python)) == launch.find_library()
    words = maps.read_text().split()
    assert "mpi4py" in maps.read_text()
    assert left({word for word in words if word.startswith("/dev/shm/")}) == []


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 600 MiB that processes can enter."""
    groups = dict(
        (controllers, path)
        for _, controllers, path in (
            line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()
        )
    )
    folder, limit = f"/sys/fs/cgroup{groups.get('', '')}", "memory.max"
    if "memory" in groups:
        folder, limit = f"/sys/fs/cgroup/memory{groups['memory']}", "memory.limit_in_bytes"
    group = Path(folder, f"ronde-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (group / limit).write_text("600M")
        except OSError as error:
            pytest.skip(f"no memory limit can be set here: {error}")
        yield group
    finally:
        group.rmdir()


def test_a_memory_limit_is_not_run_into(small_group: Path) -> None:
    job = jobs.run(4, "limited.py", str(small_group))
    assert job.status == 0 and "nobody was killed" in job.output, job.output
