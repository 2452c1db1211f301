"""Ranks that fail in training: all others get an error that names ranks and parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jobs
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

PROGRAM = Path(__file__).parent / "programs" / "trouble.py"
GRADIENTS = "6 parameters 0.weight to 2.bias were being reduced"


def run(kind: str) -> str:
    """What three ranks print, of which rank 1 fails."""
    variables = {"OMP_NUM_THREADS": "1", "RONDE_STALL_TIMEOUT": "5", "RONDE_LOG": "error"}

    def once() -> str:
        command = [sys.executable, str(PROGRAM), kind]
        with jobs.started_command(3, command, **variables) as process:
            try:
                output, _ = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                pytest.fail("the job has not ended")
            assert process.returncode != 0
            return str(output)

    return jobs.until_begun(once, lambda output: output)


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("raises", "RankFailedError", "rank 1 gave up: ArithmeticError: this rank has a bug"),
        ("exits", "RankFailedError", "rank 1 has left"),
        ("sleeps", "StalledError", "  1      in no call"),
    ],
    ids=["raises", "exits", "sleeps"],
)
def test_the_others_say_who_and_what(kind: str, error: str, reason: str) -> None:
    output = run(kind)
    for rank in (0, 2):
        assert f"rank {rank} got {error}" in output
    assert output.count(GRADIENTS) >= 2
    assert "gradient of 1.bias" in output
    assert reason in output
