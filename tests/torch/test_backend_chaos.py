"""A rank that does not do its part: the other gets an error that names it, and nothing hangs."""

from __future__ import annotations

import sys
from pathlib import Path

import jobs
import pytest

pytest.importorskip("torch", reason="torch is not installed")

PROGRAM = Path(__file__).parent / "backend_chaos.py"


def output_of(what: str, stall_timeout: int = 60) -> str:
    command = [sys.executable, str(PROGRAM), what]
    with jobs.started_command(2, command, RONDE_STALL_TIMEOUT=str(stall_timeout)) as process:
        output, _ = process.communicate(timeout=120)
    return output


def test_a_rank_that_raises_in_the_backward_pass() -> None:
    output = output_of("raises")
    assert "backward: RankFailedError: rank 1 gave up: ZeroDivisionError" in output
    assert "Traceback" in output


def test_a_rank_that_leaves() -> None:
    assert "backward: RankFailedError: rank 1 has left" in output_of("leaves")


def test_a_rank_that_sleeps() -> None:
    output = output_of("sleeps", 5)
    assert "recv: StalledError: receive from rank 1" in output
    assert "new_group: StalledError: the making of process set [0, 1]" in output
    assert "rank 1" in output
    assert "all_reduce: StalledError" in output or "all_reduce: RondeError" in output
