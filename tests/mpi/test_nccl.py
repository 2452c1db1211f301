"""Jobs whose ranks have a GPU each and NCCL, both of which are fakes."""

from __future__ import annotations

import pytest
from fakes import NATIVE, needs_fakes
from jobs import run

pytestmark = needs_fakes


def variables(ranks: int) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": str(NATIVE / "fake"),
        "FAKE_CUDA_DELAYS": "7",
        "FAKE_CUDA_DEVICES": str(ranks),
    }


@pytest.mark.parametrize(("ranks", "shared"), [(2, "1"), (3, "0"), (4, "1"), (8, "1")])
def test_collectives_of_device_arrays(ranks: int, shared: str) -> None:
    job = run(ranks, "device_arrays.py", "nccl", RONDE_SHARED_MEMORY=shared, **variables(ranks))
    assert job.status == 0, job.output
    assert "as with NumPy arrays nccl" in job.output


def test_how_calls_go_is_said() -> None:
    job = run(2, "device_arrays.py", "nccl", RONDE_LOG="debug", **variables(2))
    assert job.status == 0, job.output
    assert "arrays of GPUs go over NCCL" in job.output
    assert "allreduce (float32, shape (8, 3), op=sum): over NCCL" in job.output


def test_ranks_without_enough_gpus_copy() -> None:
    job = run(2, "device_arrays.py", "interface", RONDE_LOG="info", **variables(1))
    assert job.status == 0, job.output
    assert "copied through the memory of the host" in job.output
    assert "has 2 ranks and 1 GPU for them" in job.output


def test_ranks_that_use_the_same_gpu_copy() -> None:
    job = run(2, "device_arrays.py", "interface", **variables(2))
    assert job.status == 0, job.output
    assert job.output.count("ranks 0 and 1 use the same GPU") == 1


def test_it_can_be_turned_off() -> None:
    job = run(2, "device_arrays.py", "interface", RONDE_NCCL="off", **variables(2))
    assert job.status == 0, job.output
    assert "use the same GPU" not in job.output


def test_arrays_on_gpus_and_on_the_host_do_not_belong_together() -> None:
    job = run(2, "nccl_trouble.py", "mismatch", **variables(2))
    assert job.status == 0, job.output
    assert "noticed" in job.output


def test_what_a_call_has_read_may_be_written_to() -> None:
    job = run(2, "nccl_trouble.py", "reuse", **variables(2))
    assert job.status == 0, job.output
    assert "as it was" in job.output


def test_no_stream_waits_for_a_rank_that_was_given_up() -> None:
    haste = {"RONDE_STALL_WARNING": "0", "RONDE_STALL_TIMEOUT": "6"}
    job = run(2, "nccl_trouble.py", "silent", **haste, **variables(2))
    assert job.status != 0
    assert "stalled [1. 1. 1.]" in job.output


@pytest.mark.parametrize("kind", ["gpus", "mixed", "pairs"])
def test_machines_of_several_ranks(kind: str) -> None:
    job = run(4, "machines.py", kind, RONDE_LOG="debug", **variables(4))
    assert job.status == 0, job.output
    assert f"as with NumPy arrays {kind}" in job.output
    inside = "over NCCL in this machine first, among its 2 ranks" in job.output
    assert inside == (kind != "pairs")
