"""The whole public API on real jobs."""

from __future__ import annotations

import ast
from pathlib import Path

import jobs
import numpy as np
import pytest


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_all_collectives_on_all_dtypes(ranks: int) -> None:
    job = jobs.run(ranks, "collectives.py", str(ranks))
    assert job.status == 0, job.output
    assert f"all collectives are right on {ranks} ranks" in job.output


@pytest.mark.parametrize(
    "name",
    ["RONDE_CHECK=0", "RONDE_SHARED_MEMORY=0", "RONDE_SEGMENT_BYTES=100", "RONDE_DETERMINISTIC=1"],
)
def test_settings_change_no_result(name: str) -> None:
    variable, _, value = name.partition("=")
    job = jobs.run(3, "collectives.py", "3", **{variable: value})
    assert job.status == 0, job.output


@pytest.mark.parametrize("ranks", [3, 4])
def test_all_algorithms(ranks: int) -> None:
    job = jobs.run(ranks, "algorithms.py")
    assert job.status == 0, job.output
    assert f"all algorithms are right on {ranks} ranks" in job.output


@pytest.mark.parametrize("shared", ["0", "1"])
def test_compressed_training(shared: str) -> None:
    job = jobs.run(3, "compression.py", RONDE_SHARED_MEMORY=shared)
    assert job.status == 0, job.output
    assert "compression is right on 3 ranks" in job.output


def test_a_checkpoint_continues_the_loss_curve(tmp_path: Path) -> None:
    """At the same size bit for bit; at half of it but for what compression does to single steps."""
    steps = 160
    for ranks, what in ((4, "first"), (4, "resume"), (2, "resume")):
        job = jobs.run(
            ranks, "checkpoint.py", str(tmp_path), what, str(steps), RONDE_SHARED_MEMORY="0"
        )
        assert job.status == 0, job.output
    for name in ("int4", "topk", "dgc", "powersgd", "shared_scale"):
        whole = (tmp_path / f"first-4-{name}").read_text()
        assert (tmp_path / f"resume-4-{name}").read_text() == whole
        losses, _ = ast.literal_eval(whole)
        half, _ = ast.literal_eval((tmp_path / f"resume-2-{name}").read_text())
        assert len(losses) == len(half) == steps // 2
        assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])  # it learns
        # Two ranks send another selection than four: a stretch of the curve is the same, not a step.
        stretches = [np.reshape(each, (-1, 20)).mean(axis=1) for each in (half, losses)]
        np.testing.assert_allclose(*stretches, rtol=0.25)


def test_init_takes_any_communicator() -> None:
    job = jobs.run(4, "part_of_the_world.py")
    assert job.status == 0, job.output
    assert "any communicator will do" in job.output


@pytest.mark.large
def test_arrays_over_two_gigabytes() -> None:
    job = jobs.run(2, "large.py", timeout=280)
    assert job.status == 0, job.output
    assert "large arrays are right" in job.output
