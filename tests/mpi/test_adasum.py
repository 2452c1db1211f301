"""Adasum in real jobs."""

from __future__ import annotations

import jobs
import pytest


@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_results_and_a_training(ranks: int) -> None:
    job = jobs.run(ranks, "adasum.py")
    assert job.status == 0, job.output
    assert f"Adasum is right on {ranks} ranks" in job.output


@pytest.mark.parametrize(
    "setting",
    ["RONDE_CHECK=0", "RONDE_SEGMENT_BYTES=100", "RONDE_ALGORITHM=allreduce:ring"],
)
def test_over_the_network(setting: str) -> None:
    variable, _, value = setting.partition("=")
    job = jobs.run(3, "adasum.py", RONDE_SHARED_MEMORY="0", **{variable: value})
    assert job.status == 0, job.output
