"""Asynchronous calls in real jobs."""

from __future__ import annotations

import os

import jobs
import pytest

HASTE = {"RONDE_STALL_WARNING": "0.5", "RONDE_STALL_TIMEOUT": "20"}


@pytest.mark.parametrize("shared", ["0", "1"])
@pytest.mark.parametrize("case", ["orders", "dropped", "forked", "compressed", "daemons"])
def test_calls_complete(case: str, shared: str) -> None:
    job = jobs.run(4, "asynchronous.py", case, RONDE_SHARED_MEMORY=shared)
    assert job.status == 0, job.output
    assert job.output.count("is done") == 4
    assert "Error" not in job.output, job.output


@pytest.mark.parametrize("shared", ["0", "1"])
def test_a_rank_that_ends_without_a_call_is_named(shared: str) -> None:
    job = jobs.run(3, "asynchronous.py", "leaves", RONDE_SHARED_MEMORY=shared, **HASTE)
    assert job.status != 0
    assert "rank 1 has left: shutdown, or the end of the program" in job.output
    assert "missing" in job.output


@pytest.mark.parametrize("shared", ["0", "1"])
def test_a_rank_that_raises_ends_the_job(shared: str) -> None:
    job = jobs.run(3, "asynchronous.py", "raises", RONDE_SHARED_MEMORY=shared, **HASTE)
    assert job.status != 0
    assert "ValueError: something of the user's" in job.output
    assert "is done" not in job.output


def test_a_rank_that_is_killed_ends_the_job() -> None:
    job = jobs.run(3, "asynchronous.py", "killed", **HASTE)
    assert job.status != 0
    assert "is done" not in job.output


@pytest.mark.parametrize("shared", ["0", "1"])
def test_a_rank_that_stops_is_named(shared: str) -> None:
    settings = {"RONDE_STALL_WARNING": "0.5", "RONDE_STALL_TIMEOUT": "4"}
    job = jobs.run(3, "asynchronous.py", "stops", RONDE_SHARED_MEMORY=shared, **settings)
    assert job.status != 0
    assert "rank 0 has found" in job.output or "rank 2 has found" in job.output, job.output
    assert "is done" not in job.output


@pytest.mark.parametrize("shared", ["0", "1"])
def test_after_a_deviation_work_goes_on(shared: str) -> None:
    settings = {"RONDE_STALL_WARNING": "0.5", "RONDE_STALL_TIMEOUT": "4"}
    job = jobs.run(3, "asynchronous.py", "deviates", RONDE_SHARED_MEMORY=shared, **settings)
    assert job.status == 0, job.output
    assert job.output.count("is done") == 3


@pytest.mark.parametrize("shared", ["0", "1"])
def test_what_is_ready_gives_the_same_bits(shared: str) -> None:
    settings = {"RONDE_DETERMINISTIC": "1", "RONDE_SHARED_MEMORY": shared}
    job = jobs.run(4, "asynchronous.py", "ready", **settings)
    assert job.status == 0, job.output


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_the_worker_runs_on_the_core_that_is_named() -> None:
    core = str(max(os.sched_getaffinity(0)))
    job = jobs.run(1, "asynchronous.py", "pinned", RONDE_ENGINE_CORE=core)
    assert job.status == 0, job.output


def test_a_core_that_is_not_there_is_reported() -> None:
    job = jobs.run(2, "asynchronous.py", "dropped", RONDE_ENGINE_CORE="4095")
    assert job.status == 0, job.output
    assert "RONDE_ENGINE_CORE: this process may not use core 4095" in job.output
