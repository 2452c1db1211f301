"""Ranks that torchrun has started find each other, where MPI can be told who they are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jobs
import pytest

pytest.importorskip("torch", reason="torch is not installed")

PROGRAM = Path(__file__).parent / "programs" / "torchrun.py"
OTHER = os.environ.get("OTHER_MPIRUN", "")
TIMEOUT = 120.0


def torchrun(ranks: int, *program: object, **variables: str) -> tuple[int, str]:
    """The status and the output of all ranks on one machine."""
    with started("--standalone", "--nproc-per-node", ranks, *program, **variables) as process:
        output, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, output


@contextmanager
def started(*arguments: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def mpich() -> dict[str, str]:
    """The variables by which mpi4py finds it."""
    if jobs.mpi().vendor == "MPICH":
        return {}
    library = Path(OTHER).parents[1] / "lib" / "libmpi.so.12" if OTHER else None
    if library is None or not library.exists():
        pytest.skip("OTHER_MPIRUN does not name the launcher of an installed MPICH")
    return {"MPI4PY_LIBMPI": str(library)}


@pytest.mark.parametrize("what", ["hvd", "hook"])
def test_ranks_find_each_other(what: str, mpich: dict[str, str]) -> None:
    require_sums(*torchrun(3, PROGRAM, what, **mpich))


def test_torchrun_below_a_launcher_of_mpi(mpich: dict[str, str]) -> None:
    output = torchrun(3, PROGRAM, "backend", PMI_RANK="7", PMIX_NAMESPACE="x", **mpich)
    require_sums(*output, "PMIX_NAMESPACE", "PMI_RANK")


def require_sums(status: int, output: str, *left: str) -> None:
    """`left`: what the environment has of launchers of MPI, before and after."""
    assert status == 0, output
    lines = sorted(line for line in output.splitlines() if line.startswith("rank"))
    assert lines == [f"rank {rank} of 3 got 3.0 {list(left)}" for rank in range(3)], output


def test_ranks_that_are_started_again(mpich: dict[str, str], tmp_path: Path) -> None:
    """By two agents, as on two machines: only one of them counts the restart."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    agent: list[object] = ["--nnodes", 2, "--nproc-per-node", 1, "--max-restarts", 2]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", place, "--rdzv-id", "test"]
    program = PROGRAM, "ends", tmp_path / "has ended"
    with started(*agent, *program, **mpich) as one, started(*agent, *program, **mpich) as other:
        outputs = [each.communicate(timeout=TIMEOUT)[0] for each in (one, other)]
    assert one.returncode == other.returncode == 0, outputs
    assert "".join(outputs).count("got 2.0 []") == 2, outputs
    assert (tmp_path / "has ended").exists()


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
