"""The tuning file in real jobs: whose figures hold, and what becomes of a file that does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jobs
import pytest
from ronde import settings, tuning

MESSAGES = {"RONDE_SHARED_MEMORY": "0"}
LINK = {"alpha": 0.001, "overhead": 1e-5, "beta": 1e-8, "gamma": 1e-10}


def made(**changes: Any) -> tuning.Tuning:
    conditions = tuning.Conditions(jobs.mpi().name, [tuning.processor()], 1, [3])
    result = tuning.Tuning(conditions, ["here"], "today", {tuning.INSIDE: LINK}, 64 << 10)
    return dataclasses.replace(result, **changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tuning.json"
    tuning.write(str(path), made())
    return path


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def run(path: object, **variables: str) -> tuple[list[dict[str, Any]], str]:
    """What the ranks told, and what else was said."""
    job = jobs.run(3, "tuned.py", RONDE_TUNING_FILE=str(path), **(MESSAGES | variables))
    assert job.status == 0, job.output
    [line] = [line for line in job.output.splitlines() if line.startswith("told ")]
    return json.loads(line[5:]), job.output


def test_its_link_holds_on_all_ranks_and_nothing_is_measured(file: Path) -> None:
    told, output = run(file)
    expected = list(LINK.values())
    for rank in told:
        assert rank["before"][0] == rank["after"][0] == expected
        assert rank["segment_bytes"] == 64 << 10
        assert rank["in_flight"] == max(4 * (64 << 10), int(2 * LINK["alpha"] / LINK["beta"]))
    for rank in told[:2]:
        assert rank["before"][1] == rank["after"][1] == expected  # of a process set
    assert "ignored" not in output


def test_a_segment_size_that_is_set_wins(file: Path) -> None:
    for size in ("32K", "128K"):
        told, _ = run(file, RONDE_SEGMENT_BYTES=size)
        assert {rank["segment_bytes"] for rank in told} == {int(size[:-1]) << 10}
        assert all(rank["after"][0] == list(LINK.values()) for rank in told)


def test_without_it_links_are_measured(file: Path, tmp_path: Path) -> None:
    for path in ("none", ""):
        told, output = run(path)
        assert "ignored" not in output
        measured = {tuple(rank["after"][0]) for rank in told}
        assert len(measured) == 1
        assert all(rank["before"][0] != rank["after"][0] for rank in told)


def test_it_is_not_read_where_memory_serves(file: Path) -> None:
    file.write_text("not JSON")
    told, output = run(file, RONDE_SHARED_MEMORY="1")
    assert "ignored" not in output
    assert {rank["segment_bytes"] for rank in told} == {settings.usual_segment_bytes(machines=1)}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"format": 99}, "its format is not the one"),
        ({"ronde": "0.0.1"}, "it was made by Ronde 0.0.1, and this is"),
        ({"links": {"inside": LINK | {"beta": -1.0}}}, "its beta is not between"),
        ({"segment_bytes": 0}, "its segment_bytes is not between"),
        ({"made_for": {}}, "it is not complete"),
        (
            {"made_for": dataclasses.asdict(made().made_for) | {"mpi": "Some MPI 1.0"}},
            "it was made under Some MPI 1.0, and this is",
        ),
        (
            {"made_for": dataclasses.asdict(made().made_for) | {"processors": ["Abacus, 1 cores"]}},
            "it was made on another machine (Abacus, 1 cores)",
        ),
        (
            {"made_for": dataclasses.asdict(made().made_for) | {"machines": 2}},
            "it was made on 2 machines, and the ranks are on one machine",
        ),
        (
            {"made_for": dataclasses.asdict(made().made_for) | {"ranks_per_machine": [2]}},
            "it was made with 2 ranks on a machine, and there are 3",
        ),
    ],
)
def test_what_does_not_fit_is_ignored_with_one_notice(
    file: Path, fields: dict[str, Any], why: str
) -> None:
    change(file, **fields)
    told, output = run(file)
    assert output.count(f"the tuning file {file} is ignored, because {why}") == 1
    assert output.count("is ignored") == 1
    assert "`ronde tune`" in output
    assert {rank["segment_bytes"] for rank in told} == {settings.usual_segment_bytes(machines=1)}
    assert len({tuple(rank["after"][0]) for rank in told}) == 1  # measured, and agreed


def test_what_cannot_be_read_is_ignored_with_one_notice(file: Path, tmp_path: Path) -> None:
    for path, why in ((tmp_path, "it is no file"), (tmp_path / "no", "it does not exist")):
        _, output = run(path)
        assert output.count(f"the tuning file {path} is ignored, because") == 1
        assert why in output
