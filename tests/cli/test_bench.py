"""`ronde bench`, from the outside: on ranks of its own, under a launcher, and with peers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jobs
import pytest
from commands import RONDE, TIMEOUT, figures, launched, ronde
from ronde.bench.cells import COLLECTIVES

QUICK = ["--iterations", "3", "--warmup", "1"]
bench = partial(ronde, "bench")


def fake_python(folder: Path, body: str) -> str:
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


# ---- on ranks of its own, and under a launcher ---------------------------------------------------


def test_every_collective_is_measured_and_right(tmp_path: Path) -> None:
    result = launched(
        3, "bench", "all", "--sizes", "8,20K", *QUICK, "--json", "all.json", cwd=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
    kept = json.loads((tmp_path / "all.json").read_text())
    seen = [(row["cell"]["collective"], row["cell"]["size"]) for row in kept["rows"]]
    wanted = [(name, size) for name in COLLECTIVES for size in (8, 20 << 10) if name != "barrier"]
    assert sorted(seen) == sorted([*wanted, ("barrier", 0)])
    for row in kept["rows"]:
        checked = row["cell"]["collective"] not in ("barrier", "memory")
        assert row["wrong"] == (0 if checked else None)
        assert 0 < row["p50"] <= row["p99"] <= row["max"]
        assert row["iterations"] >= 3
        assert row["ranks"] == 3
    assert len(figures(result.stdout)) == len(kept["rows"])


def test_the_header_says_what_the_figures_depend_on() -> None:
    result = bench("allreduce", "-np", "2", "--sizes", "8", *QUICK)
    assert result.returncode == 0, result.stderr
    head = dict(
        line[2:].split(":", 1)
        for line in result.stdout.splitlines()
        if line[:2] == "# " and ":" in line
    )
    assert {"ranks", "version", "date", "host", "CPU", "hosts", "transport", "MPI"} <= set(head)
    assert head["ranks"].strip() == "2"
    assert head["MPI"].strip() == jobs.mpi().name


def test_sizes_types_and_ops_make_a_grid() -> None:
    words = ["--sizes", "8:128:4,1K", "--dtype", "float32,int8", "--op", "sum,max"]
    result = bench("allreduce", "-np", "2", *words, *QUICK)
    assert result.returncode == 0, result.stderr
    rows = [(words[0], words[2], words[3]) for words in figures(result.stdout)]
    assert rows == [
        (size, dtype, op)
        for dtype in ("float32", "int8")
        for op in ("sum", "max")
        for size in ("8", "32", "128", "1024")
    ]


def test_the_other_ways_to_measure() -> None:
    words = ["--out-of-place", "--no-check", "--no-rotate", "--bound", "--busy", "1"]
    result = bench("allreduce,broadcast", "-np", "2", "--sizes", "64K", *words, *QUICK)
    assert result.returncode == 0, result.stderr
    allreduce, broadcast = figures(result.stdout)
    assert allreduce[8] == "-"  # not checked
    assert float(allreduce[-1]) >= 0  # the share of the bound
    assert broadcast[-4] == "|"  # which has no bound
    assert "allreduce on 2 ranks, out of place" in result.stdout


def test_one_rank_needs_no_launcher() -> None:
    result = bench("allreduce", "--sizes", "1K", *QUICK)
    assert result.returncode == 0, result.stderr
    assert len(figures(result.stdout)) == 1


def test_types_that_a_rank_cannot_do_are_named() -> None:
    result = bench("allreduce", "--sizes", "8", "--dtype", "int8", "--op", "average", *QUICK)
    assert result.returncode == 0, result.stderr
    assert "the average of int8 would have to be rounded" in result.stdout


# ---- with peers ----------------------------------------------------------------------------------


def test_peers_are_measured_in_rounds_and_compared(tmp_path: Path) -> None:
    words = ["--sizes", "8,4K", "--peers", "mpi", "--rounds", "2", "--json", "peers.json"]
    result = bench("allreduce,alltoall", "-np", "2", *words, *QUICK, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    kept = json.loads((tmp_path / "peers.json").read_text())
    seen = sorted((row["peer"], row["round"], row["cell"]["size"]) for row in kept["rows"])
    assert seen == sorted(
        (peer, number, size)
        for peer in ("mpi", "ronde")
        for number in (0, 1)
        for size in (8, 4096)
        for _ in range(2)
    )
    assert all(row["wrong"] == 0 for row in kept["rows"])
    lines = figures(result.stdout)
    assert [words[4] for words in lines] == ["ronde", "mpi"] * 4
    for words in lines:
        low, middle, high = map(float, words[-3:])
        assert low <= middle <= high
        if words[4] == "ronde":
            assert (low, middle, high) == (1, 1, 1)


def test_peers_that_cannot_run_are_left_out_with_the_reason(tmp_path: Path) -> None:
    silent = fake_python(tmp_path, "exit 3")
    peers = f"unknown={tmp_path}/nowhere/python,silent={silent},gloo={silent}"
    result = bench(
        "allreduce", "-np", "2", "--sizes", "8", "--peers", peers, "--rounds", "2", *QUICK
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said = {line.split()[1]: line for line in result.stdout.splitlines() if "left out" in line}
    assert (
        f"left out: {tmp_path}/nowhere/python is not a program that can be run" in said["unknown:"]
    )
    assert "mpi4py could not start an MPI library" in said["silent:"]
    assert "it ended with status 3 before the job was done" in said["gloo:"]
    assert [words[4] for words in figures(result.stdout)] == ["ronde"]


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    # As if the peer's environment had neither torch nor anything else but Python itself.
    python = fake_python(tmp_path, f'exec "{sys.executable}" -I -S "$@"')
    words = ["--sizes", "8", "--peers", f"gloo={python}", "--rounds", "1"]
    result = bench("allreduce", "-np", "2", *words, *QUICK)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "left out: ModuleNotFoundError: No module named" in result.stdout


def test_a_peer_says_which_cells_it_cannot_do() -> None:
    words = ["--sizes", "8", "--dtype", "bfloat16", "--peers", "mpi", "--rounds", "1"]
    result = bench("allreduce", "-np", "2", *words, *QUICK)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "MPI does not reduce bfloat16" in result.stdout


@pytest.mark.frameworks
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_gloo_starts_its_own_ranks(tmp_path: Path) -> None:
    words = ["--sizes", "8,4K", "--peers", "gloo", "--rounds", "1", "--json", "gloo.json"]
    result = bench("all", "-np", "3", *words, *QUICK, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "gloo.json").read_text())["rows"]
    gloo = [row for row in rows if row["peer"] == "gloo" and row["cell"]["collective"] != "barrier"]
    assert len(gloo) == 2 * (len(COLLECTIVES) - 2)
    assert [row for row in gloo if row["wrong"] != 0] == []


def test_a_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    words = ["--sizes", "8:8K:32", "--plot", "chart.png"]
    result = bench("allreduce", "-np", "2", *words, *QUICK, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("peers", [[], ["--peers", "mpi"]], ids=["alone", "with peers"])
def test_nothing_stays_behind(number: signal.Signals, peers: list[str]) -> None:
    words = ["allreduce", "-np", "2", "--sizes", "8", "--seconds", "600", "--busy", "1", *peers]
    process = subprocess.Popen(
        [*RONDE, "bench", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    below: list[int] = []
    segments: set[str] = set()
    try:
        deadline = time.monotonic() + TIMEOUT
        while not any("while True" in command_of(pid) for pid in below):  # the busy neighbour
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
            below = jobs.ranks_of(process.pid)
            segments.update(*map(jobs.segments_of, below))
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        status = process.wait(TIMEOUT)
        assert jobs.wait_until_gone(below, 30) == []
        assert [path for path in segments if os.path.exists(path)] == []
        if number != signal.SIGKILL:
            assert status in (128 + number, -number)
    finally:
        process.kill()
        process.wait()
        for pid in filter(jobs.alive, below):
            os.kill(pid, signal.SIGKILL)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


# ---- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("", "the following arguments are required: COLLECTIVE"),
        ("allrescue", "'allrescue' is not one of allreduce, broadcast"),
        ("allreduce,", "'' is not one of allreduce"),
        ("allreduce --sizes 8:4", "'8:4' must go from the smaller to the larger size"),
        ("allreduce --sizes 0:4", "a size must be at least 1 byte"),
        ("allreduce --sizes 8:64:1", "'8:64:1' needs a factor of at least 2"),
        ("allreduce --sizes 8:64:2:3", "'8:64:2:3' is not like 8, 8:256M or 8:256M:4"),
        ("allreduce --sizes 8Q", "'8Q' is not like 8, 4K, 64M or 64MiB"),
        ("allreduce --dtype float31", "'float31' is not one of bool, int8"),
        ("allreduce --op mean", "'mean' is not one of sum, average, min, max, product"),
        ("allreduce --buffers fast", "'fast' is not one of plain, shared"),
        ("allreduce --compression zip", "'zip' is not one of bf16"),
        (
            "allreduce --compression int8,topk(2)",
            "'topk(2)' is not possible: a ratio must be above 0",
        ),
        ("allreduce --root -1", "'-1' is not a whole number from 0 up"),
        ("allreduce --root one", "'one' is not a whole number from 0 up"),
        ("allreduce --iterations 0", "'0' is not a positive number"),
        ("allreduce --seconds 0", "must be more than 0 seconds"),
        ("allreduce --seconds soon", "'soon' is not like 20us or 1ms"),
        ("allreduce --busy many", "'many' is not a whole number from 0 up"),
        ("allreduce -np 0", "'0' is not a positive number"),
        ("broadcast -np 2 --root 2", "root 2 must be less than 2, the number of ranks"),
        ("allreduce --root 1 --sizes 8", "root 1 must be less than 1, the number of ranks"),
        ("allreduce --peers mpi", "--peers needs to know how many ranks to start: add -np N"),
        ("allreduce -np 2 --peers ucc", "'ucc' is not one of mpi, gloo, horovod"),
        ("allreduce -np 2 --peers ucc", "ucc=/path/to/its/python"),
        ("allreduce -np 2 --peers mpi,mpi", "'mpi' is given twice"),
        ("allreduce -np 2 --peers mpi=", "'mpi=' is not like mpi or mpich=/path/to/python"),
        ("allreduce --rounds 0", "'0' is not a positive number"),
        (
            "allreduce --json /nowhere/at/all.json",
            "the folder of /nowhere/at/all.json does not exist",
        ),
        ("allreduce --plot chart.xyz", "chart.xyz"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, complaint: str) -> None:
    result = bench(*words.split())
    assert result.returncode == 2, result.stdout + result.stderr
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [("-np", "2"), ("-np", "2", "--peers", "mpi")])
def test_ranks_do_not_start_ranks(words: tuple[str, ...], tmp_path: Path) -> None:
    result = launched(2, "bench", "allreduce", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert "starts ranks of its own: call `ronde bench -np N ...` without mpirun" in result.stderr
    assert result.stderr.count("ronde bench: error") == 1


def test_help_names_every_option() -> None:
    text = bench("--help").stdout
    options = (
        "--sizes --dtype --op --root --buffers --compression --out-of-place --seconds --iterations"
    )
    options += " --warmup --no-check --no-rotate --bound --busy -np --peers --rounds --json --plot"
    options += " --device"
    assert [option for option in options.split() if option not in text] == []
