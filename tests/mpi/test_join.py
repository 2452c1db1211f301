"""Ranks that have no more data, in real jobs."""

from __future__ import annotations

import jobs
import pytest

both = pytest.mark.parametrize("shared", ["0", "1"])


@both
@pytest.mark.parametrize("case", ["training", "objects", "sets", "counts"])
def test_others_go_on(case: str, shared: str) -> None:
    job = jobs.run(4, "join.py", case, RONDE_SHARED_MEMORY=shared, RONDE_STALL_TIMEOUT="20")
    assert job.status == 0, job.output
    assert job.output.count("is done") == 4


@both
def test_others_cannot_end(shared: str) -> None:
    job = jobs.run(3, "join.py", "ends", RONDE_SHARED_MEMORY=shared)
    assert job.status != 0
    assert "rank 1: join (average=size)" in job.output, job.output
    assert "shutdown, or the end of the program" in job.output
    assert "needs all ranks" in job.output


@both
@pytest.mark.parametrize(
    "case, why",
    [
        ("killed", ""),
        ("raises", "ValueError: something of the user's"),
        ("interrupted", "KeyboardInterrupt"),
    ],
)
def test_a_failure_ends_join(case: str, why: str, shared: str) -> None:
    job = jobs.run(3, "join.py", case, RONDE_SHARED_MEMORY=shared)
    assert job.status != 0
    assert why in job.output, job.output
    assert "is done" not in job.output
