"""`ronde tune`, under a launcher: what it writes, what it shows, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jobs
import pytest
from commands import launched, ronde
from ronde import __version__, _core, tuning


def tune(ranks: int, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return launched(ranks, "tune", *words, **variables)


def test_it_writes_what_it_has_measured_and_init_reads_it(tmp_path: Path) -> None:
    result = tune(2, "--repeat", "2", RONDE_TUNING_FILE="", XDG_CONFIG_HOME=str(tmp_path))
    assert result.returncode != 0
    assert "RONDE_TUNING_FILE says that there is no file" in result.stderr

    path = tmp_path / "ronde" / "tuning.json"
    result = tune(3, "--repeat", "2", RONDE_TUNING_FILE=str(path))
    assert result.returncode == 0, result.stderr
    assert f"written to {path}" in result.stdout
    content = json.loads(path.read_text())
    assert (content["format"], content["ronde"]) == (1, __version__)
    assert set(content["links"]) == {"inside"}
    found = tuning.parse(path.read_text())
    assert found.made_for == tuning.Conditions(jobs.mpi().name, [tuning.processor()], 1, [3])
    assert all(value > 0 for value in found.links[tuning.INSIDE].values())
    assert list(path.parent.iterdir()) == [path]

    # A job takes over what the file says, without measuring: it would find other figures.
    job = jobs.run(3, "tuned.py", RONDE_TUNING_FILE=str(path), RONDE_SHARED_MEMORY="0")
    assert job.status == 0, job.output
    assert "ignored" not in job.output
    [line] = [line for line in job.output.splitlines() if line.startswith("told ")]
    link = list(found.links[tuning.INSIDE].values())
    for rank in json.loads(line[5:]):
        assert rank["before"][0] == rank["after"][0] == link
        assert rank["segment_bytes"] == found.segment_bytes


def test_the_table_is_of_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    # Neither a file that is there already nor the environment's segment size matters.
    path.write_text("something else")
    result = tune(3, "--repeat", "1", "--output", str(path), RONDE_TUNING_FILE=str(path))
    assert result.returncode == 0, result.stderr
    assert "ignored" not in result.stdout + result.stderr
    found = tuning.parse(path.read_text())
    lines = result.stdout.splitlines()
    [measured] = [line for line in lines if line.startswith("inside a machine")]
    link = found.links[tuning.INSIDE]
    assert float(measured.split()[-4]) == pytest.approx(link["alpha"] * 1e6, abs=0.01)
    assert float(measured.split()[-2]) == pytest.approx(1e-9 / link["beta"], rel=0.01)
    assert any(f"segments of {found.segment_bytes >> 10} KiB" in line for line in lines)
    # What is said of algorithms is what would be chosen.
    for collective in ("allreduce", "broadcast"):
        [line] = [line for line in lines if re.match(rf"{collective} +1 KiB ", line)]
        for size, unit, name in re.findall(r"(\d+) (KiB|MiB) (\w+)", line):
            items = int(size) << (10 if unit == "KiB" else 20) >> 2
            counts = [items // 3 + (rank < items % 3) for rank in range(3)]
            chosen, cost = _core.candidates(collective, counts, 0, 4, **link)[0]
            otherwise = 2 * link["alpha"] + cost.seconds  # phase 0 of three ranks
            ride = _core.cheapest_ride(4 * items, 3, _core.Link(**link), otherwise)
            if collective == "allreduce" and ride:
                assert name == ride[0]
            else:
                assert name == chosen


def test_one_rank_has_nothing_to_tune(tmp_path: Path) -> None:
    result = tune(1, "--output", str(tmp_path / "no.json"))
    assert result.returncode != 0
    assert "ronde tune: error: one rank has nobody to talk to" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_told_of_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "tuning.json"
    result = tune(2, "--repeat", "1000000", "--output", str(path))
    assert result.returncode != 0
    assert f"ronde tune: error: {path} cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_measured_segment_must_win_every_time() -> None:
    from ronde.cli.tune import Trials

    def best(usual: list[float], other: list[float]) -> int:
        return Trials(1, {61440: usual, 4096: other}, usual=61440).best()

    assert best([1.0, 1.0], [0.5, 0.5]) == 4096
    assert best([1.0, 1.0, 1.0], [0.5, 0.5, 1.0]) == 61440
    assert best([1.0], [0.99]) == 61440


def test_help_says_how_to_start_it() -> None:
    result = ronde("tune", "--help")
    assert result.returncode == 0
    assert "mpirun -n 4 ronde tune" in result.stdout
