"""The programs in benchmarks/ that start jobs: whatever ends them, nothing of the jobs is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jobs
import pytest
from ronde.bench import rounds

from benchmarks.cluster import hosts

pytestmark = pytest.mark.cluster
FOLDER = Path(hosts.__file__).parents[1]
ENDLESS = "1000000"  # rounds, steps or seconds

# How the command lines of ranks begin, after Python, and what makes them run without end.
PROGRAMS = {
    "compression.py": (
        f"{FOLDER}/compression.py ",
        ["--hosts", "2", "--megabytes", "1", "--rounds", ENDLESS],
    ),
    "network.py": (
        f"{FOLDER}/network.py ",
        ["--hosts", "2", "--sizes", "8", "--rounds", ENDLESS],
    ),
    "time_to_loss.py": (
        "-m training.rank ",
        ["--links", "1gbit", "--choices", "fp32", "--batch", "1", "--steps", ENDLESS],
    ),
    "node.py": (
        f"{rounds.__file__.replace('rounds', 'standalone')} ",
        ["--ranks", "2", "--sizes", "8", "--seconds", ENDLESS],
    ),
}
TERM, ALL = [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize(
    ("program", "how"),
    [(name, how) for name in PROGRAMS for how in (ALL if name == "compression.py" else TERM)],
)
def test_what_was_started_ends_with_the_program(
    cluster: hosts.Cluster, tmp_path: Path, program: str, how: signal.Signals
) -> None:
    start, words = PROGRAMS[program]
    rank = f"{sys.executable} {start}"
    folders = {name: tmp_path / name.lower() for name in ("XDG_RUNTIME_DIR", "TMPDIR", "RESULTS")}
    for folder in folders.values():
        folder.mkdir()
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    driver = subprocess.Popen(
        [sys.executable, str(FOLDER / program), *words],
        env=environment,
        cwd=folders["RESULTS"],
        stdin=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 100
        while sum(line.startswith(rank) for line in jobs.commands_of(driver.pid)) < 2:
            assert time.monotonic() < deadline, "the job did not start"
            assert driver.poll() is None
            time.sleep(0.05)
        below = jobs.ranks_of(driver.pid)
        driver.send_signal(how)
        status = driver.wait(60)
    finally:
        driver.kill()
        driver.wait()
    assert jobs.wait_until_gone(below, 20) == []
    assert not list(folders["XDG_RUNTIME_DIR"].glob("*/*"))
    if how != signal.SIGKILL:
        assert status == 128 + how
        assert not list(folders["TMPDIR"].glob("ronde-*"))
