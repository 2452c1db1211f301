"""Jobs whose arrays are in the memory of a GPU, which the fake driver has."""

from __future__ import annotations

import os
import re
import signal

import jobs
import pytest
from fakes import NATIVE, needs_fakes

pytestmark = needs_fakes

FAKE = {"LD_LIBRARY_PATH": str(NATIVE / "fake"), "FAKE_CUDA_DELAYS": "7"}


@pytest.mark.parametrize(
    ("ranks", "kind", "shared"),
    [
        (2, "interface", "1"),
        (2, "mixed", "0"),
        (3, "dlpack", "0"),
        (4, "interface", "0"),
        (4, "mixed", "1"),
        (8, "mixed", "0"),
    ],
)
def test_collectives_of_device_arrays(ranks: int, kind: str, shared: str) -> None:
    job = jobs.run(ranks, "device_arrays.py", kind, RONDE_SHARED_MEMORY=shared, **FAKE)
    assert job.status == 0, job.output
    assert "as with NumPy arrays" in job.output


@pytest.mark.parametrize(
    ("case", "said"), [("mismatch", "goes on"), ("forgotten", "complete")], ids=lambda each: each
)
def test_calls_of_device_arrays_that_go_wrong_or_unwatched(case: str, said: str) -> None:
    job = jobs.run(3, "device_trouble.py", case, **FAKE)
    assert job.status == 0, job.output
    assert job.output.count(said) == 3, job.output


def test_a_gpu_without_memory_ends_the_call_on_all_ranks() -> None:
    job = jobs.run(3, "device_trouble.py", "memory", **FAKE)
    assert job.output.count("raised: ") == 3, job.output
    assert len(re.findall("raised: .*CUDA_ERROR_OUT_OF_MEMORY", job.output)) == 3, job.output


def test_a_killed_rank_ends_the_job() -> None:
    with jobs.started(3, "device_trouble.py", "killed", **FAKE) as process:
        assert process.stdout is not None
        while "under way" not in process.stdout.readline():
            assert process.poll() is None
        below = jobs.ranks_of(process.pid)
        ranks = [pid for pid in below if "device_trouble.py" in jobs.command_of(pid)]
        assert len(ranks) == 3
        os.kill(max(ranks), signal.SIGKILL)
        left = jobs.wait_until_gone([process.pid, *below], 10)
        assert not left, "processes were left"
        process.communicate(timeout=10)
        assert process.returncode != 0
