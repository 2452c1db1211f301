"""Ranks that torchrun has started find each other, where MPI can be told who they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import jobs
import pytest

pytest.importorskip("torch", reason="torch is not installed")

PROGRAM = Path(__file__).parent / "programs" / "torchrun.py"
EXAMPLES = Path(__file__).parents[2] / "examples"
OTHER = os.environ.get("OTHER_MPIRUN", "")
TIMEOUT = 120.0


def torchrun(ranks: int, *program: object, restarts: int = 0, **variables: str) -> tuple[int, str]:
    """The status and the output of all ranks."""
    options = "--nproc-per-node", ranks, "--max-restarts", restarts, "--standalone"
    command = [sys.executable, "-m", "torch.distributed.run", *options, *program]
    process = subprocess.Popen(
        [*map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


@pytest.fixture
def mpich() -> dict[str, str]:
    """The variables by which mpi4py finds it."""
    if jobs.mpi().vendor == "MPICH":
        return {}
    library = Path(OTHER).parents[1] / "lib" / "libmpi.so.12" if OTHER else None
    if library is None or not library.exists():
        pytest.skip("OTHER_MPIRUN does not name the launcher of an installed MPICH")
    return {"MPI4PY_LIBMPI": str(library)}


@pytest.mark.parametrize("what", ["hvd", "backend", "hook"])
def test_ranks_find_each_other(what: str, mpich: dict[str, str]) -> None:
    # As if a launcher of MPI had started torchrun.
    status, output = torchrun(3, PROGRAM, what, PMI_RANK="7", PMIX_NAMESPACE="x", **mpich)
    assert status == 0, output
    lines = sorted(line for line in output.splitlines() if line.startswith("rank"))
    assert lines == [f"rank {rank} of 3 got 3.0 []" for rank in range(3)], output


def test_ranks_that_are_started_again(mpich: dict[str, str]) -> None:
    status, output = torchrun(2, PROGRAM, "ends", restarts=1, **mpich)
    assert status == 0, output
    assert output.count("of 2 got 2.0 []") == 2, output


def test_an_example(mpich: dict[str, str]) -> None:
    status, output = torchrun(2, EXAMPLES / "torch_ddp.py", "--epochs", 1, **mpich)
    assert status == 0, output


def test_another_mpi_is_an_error_that_says_what_to_do() -> None:
    if jobs.mpi().vendor != "Open MPI":
        pytest.skip("this MPI can be told who the ranks are")
    status, output = torchrun(2, PROGRAM, "backend")
    assert status != 0
    assert "torchrun started 2 processes, but mpi4py uses Open MPI" in output
    assert "ronde run -np 2" in output and "pip install mpich" in output


def test_an_mpi_that_was_started_too_early(mpich: dict[str, str]) -> None:
    status, output = torchrun(2, PROGRAM, "early", **mpich)
    assert status != 0
    assert "import mpi4py.MPI after ronde.init()" in output
