"""`ronde bench --device cuda`, with the GPUs of the fake driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jobs
import pytest
import ronde
from commands import figures, launched
from commands import ronde as command
from fakes import NATIVE, needs_fakes, with_fakes
from ronde.bench.cells import COLLECTIVES

QUICK = ["--iterations", "3", "--warmup", "1"]
FAKE_CUPY = Path(__file__).parents[1] / "bench/fake_cupy"


def bench(*words: str, cwd: Path, **variables: str) -> tuple[str, list[dict[str, Any]]]:
    """What is printed, and the rows that are kept."""
    words = ("bench", *words, "--device", "cuda", "--json", "kept.json", *QUICK)
    result = command(*words, cwd=cwd, env=with_fakes(**variables))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, json.loads((cwd / "kept.json").read_text())["rows"]


@needs_fakes
def test_every_collective_is_measured_and_right(tmp_path: Path) -> None:
    printed, rows = bench(
        "all", "-np", "2", "--sizes", "8,100K", cwd=tmp_path, FAKE_CUDA_DELAYS="3"
    )
    assert "# GPU:       Fake GPU, sm_90; each rank has that of its local rank modulo 1" in printed
    assert "# arrays:    in GPU memory; times include the wait for the result" in printed
    assert "# allreduce on 2 ranks, in place, cuda buffers" in printed
    assert len(rows) == 2 * (len(COLLECTIVES) - 1) + 1
    for row in rows:
        kind = row["cell"]["collective"]
        assert row["wrong"] == (None if kind in ("barrier", "memory") else 0), row
        assert (row["time"] > 0) == (kind != "memory")
    assert printed.count("the bound is that of the host's memory") == 2


@needs_fakes
def test_types_and_ops_out_of_place(tmp_path: Path) -> None:
    words = ["--dtype", "bool,float16,int64,bfloat16", "--op", "max,product"]
    words += ["--out-of-place", "--sizes", "10K"]
    printed, rows = bench("allreduce,broadcast", "-np", "2", *words, cwd=tmp_path)
    assert "# broadcast on 2 ranks, out of place, cuda buffers" in printed
    refused = [row for row in rows if row["why_not"]]
    assert {row["cell"]["dtype"] for row in refused} == {"bfloat16"}
    assert "bfloat16 in GPU memory needs tensors of torch or arrays of CuPy" in printed
    assert [row["wrong"] for row in rows if not row["why_not"]] == [0] * 9


@needs_fakes
def test_compressors_take_turns(tmp_path: Path) -> None:
    words = ["--compression", "int8", "--rounds", "2", "--sizes", "16K"]
    _, rows = bench("allreduce", "-np", "2", *words, cwd=tmp_path, RONDE_SHARED_MEMORY="0")
    seen = {row["cell"]["compression"]: row["error"] for row in rows}
    assert list(seen) == ["none", "bf16", "int8"]
    assert seen["none"] == 0 < seen["bf16"] < seen["int8"] < 0.05
    assert len(rows) == 6


@needs_fakes
def test_vectors_are_in_the_memory_of_the_ranks_gpus() -> None:
    job = jobs.run(
        3, "bench_vectors.py", LD_LIBRARY_PATH=str(NATIVE / "fake"), FAKE_CUDA_DEVICES="2"
    )
    assert job.status == 0, job.output
    assert "in the memory of their GPUs" in job.output


@needs_fakes
def test_nccl_is_compared(tmp_path: Path) -> None:
    """By a CuPy that MPI stands behind: the arguments are those of CuPy's documentation."""
    words = ["--peers", "nccl", "--rounds", "1", "--op", "sum,max", "--sizes", "20K"]
    variables = {"PYTHONPATH": str(FAKE_CUPY), "FAKE_CUDA_DEVICES": "2"}
    collectives = "allreduce,broadcast,allgather,reducescatter,reduce,alltoall"
    printed, rows = bench(collectives, "-np", "2", *words, cwd=tmp_path, **variables)
    assert "# nccl:      NCCL 22809, by CuPy 0" in printed
    assert "time / ronde cuda" in printed
    nccl = [row for row in rows if row["peer"] == "nccl"]
    assert [row["wrong"] for row in nccl if not row["why_not"]] == [0] * (3 * 2 + 2)
    assert {row["why_not"] for row in nccl} == {"", "NCCL has no alltoall by CuPy"}


@pytest.mark.skipif(ronde.cuda_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"LD_LIBRARY_PATH": ""}, "there is no NVIDIA driver: libcuda.so.1"),
        pytest.param(
            {"FAKE_CUDA_DEVICES": "0"}, "the NVIDIA driver finds no GPU", marks=needs_fakes
        ),
    ],
    ids=["no driver", "no GPU"],
)
def test_what_is_missing_is_said_once(variables: dict[str, str], complaint: str) -> None:
    variables = {"LD_LIBRARY_PATH": str(NATIVE / "fake"), **variables}
    result = launched(2, "bench", "allreduce", "--device", "cuda", "--sizes", "8", **variables)
    assert result.returncode == 1
    assert result.stderr.count(f"ronde: rank 0 has no GPU: {complaint}") == 1
    assert result.stderr.count("`ronde doctor` on its host says more") == 1
    assert "Traceback" not in result.stderr
    assert figures(result.stdout) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--device gpu", "invalid choice: 'gpu'"),
        ("--device cuda -np 2 --peers mpi", "with --device cuda the only peer is nccl, not mpi"),
        ("-np 2 --peers nccl", "NCCL takes arrays in the memory of GPUs only: add --device cuda"),
        ("--device cuda --buffers plain,shared", "--buffers shared is memory of the host"),
        ("--device cuda --bound", "--bound measures the host's memory"),
    ],
)
def test_what_does_not_go_together_is_refused(words: str, complaint: str) -> None:
    result = command("bench", "allreduce", *words.split())
    assert result.returncode == 2, result.stdout + result.stderr
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
