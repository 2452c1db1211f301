"""What sizes and speeds mean: as in nccl-tests."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from ronde.bench.cells import COLLECTIVES, Cell, Job, Row


@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "reduce"])
def test_the_size_is_that_of_the_vector(collective: str) -> None:
    cell = Cell(collective, 4096, "float64")
    assert (cell.count(8), cell.bytes(8), cell.inputs(8), cell.outputs(8)) == (512, 4096, 512, 512)


@pytest.mark.parametrize(
    "collective, inputs, outputs",
    [
        ("allgather", 64, 512),
        ("gather", 64, 512),
        ("reducescatter", 512, 64),
        ("scatter", 512, 64),
        ("alltoall", 512, 512),
    ],
)
def test_the_size_is_that_of_the_larger_side(collective: str, inputs: int, outputs: int) -> None:
    cell = Cell(collective, 4096, "float64")
    assert (cell.count(8), cell.bytes(8)) == (64, 4096)
    assert (cell.inputs(8), cell.outputs(8)) == (inputs, outputs)


def test_sizes_are_whole_elements_for_every_rank() -> None:
    assert Cell("allreduce", 10).bytes(8) == 8
    assert Cell("allgather", 8).bytes(8) == 32  # one element each
    assert Cell("alltoall", 1000).bytes(3) == 996
    assert Cell("barrier", 8).bytes(3) == 0


@pytest.mark.parametrize(
    "collective, factor",
    [
        ("allreduce", 2 * 3 / 4),
        ("allgather", 3 / 4),
        ("reducescatter", 3 / 4),
        ("alltoall", 3 / 4),
        ("gather", 3 / 4),
        ("scatter", 3 / 4),
        ("broadcast", 1),
        ("reduce", 1),
    ],
)
def test_bus_bandwidth(collective: str, factor: float) -> None:
    row = Row(Cell(collective, 8_000_000), 8_000_000, 2_000_000, ranks=4, time=1000.0)
    assert row.algbw == pytest.approx(8.0)  # 8 MB in 1 ms
    assert row.busbw == pytest.approx(8.0 * factor)


def test_jobs_and_rows_travel_as_json() -> None:
    cells = [Cell(name, 1024, "bfloat16", "max", 1, False, "shared") for name in COLLECTIVES]
    job = Job(cells, iterations=7, busy=2)
    assert Job.of(json.loads(json.dumps(asdict(job)))) == job
    row = Row(cells[0], 1024, 512, 2, 5, 1.5, wrong=0, peer="mpi", round=2)
    assert Row.of(json.loads(json.dumps(asdict(row) | {"busbw": row.busbw}))) == row
