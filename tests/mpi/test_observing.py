"""What can be seen of a job: its flight records, its counters, its timeline."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jobs
import pytest

OBSERVED = str(jobs.PROGRAMS / "observed.py")


@contextmanager
def running(ranks: int, case: str, **variables: str) -> Iterator[tuple[Any, dict[int, int]]]:
    """A job, and the process of each rank."""
    with jobs.started(ranks, "observed.py", case, **variables) as job:
        processes: dict[int, int] = {}
        while len(processes) < ranks:
            line = job.stdout.readline()
            assert line, "the job has ended"
            if found := re.search(r"rank (\d+) is process (\d+)", line):
                processes[int(found[1])] = int(found[2])
        time.sleep(0.5)  # until the others wait long enough to look up where they are
        yield job, processes


def inspect(process: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ronde", "inspect", str(process), "--last", "2"],
        capture_output=True,
        text=True,
        timeout=60,
    )


def check_report(text: str, processes: dict[int, int]) -> None:
    """Who waits for whom in the case `late`."""
    for rank in (0, 2):
        wanted = (
            rf"\b{rank} +{processes[rank]} +(stopped: )?in allreduce 'late' \(7\.8 KiB\) +[\d.]+ m?s +"
            rf"rank 1 +"
            rf"\S*observed\.py:\d+\n.*submitted: allreduce 'pending' \(7\.8 KiB\) +[\d.]+ m?s +rank 1 +"
            rf"\S*observed\.py:\d+\n"
        )
        assert re.search(wanted, text), text
    assert re.search(rf"\b1 +{processes[1]} +(stopped: )?in no call +[\d.]+ m?s\n", text), text


def test_ranks_that_hang_are_inspected_without_their_help() -> None:
    with running(3, "late") as (job, processes):
        for process in processes.values():
            os.kill(process, signal.SIGSTOP)
        of_rank, of_launcher = inspect(processes[2]), inspect(job.pid)
        for answer in (of_rank, of_launcher):
            assert answer.returncode == 0, answer.stderr
            check_report(answer.stdout, processes)
            assert "last calls of rank 0:" in answer.stdout
            assert re.search(r"stopped: in no call", answer.stdout)


def test_what_is_no_rank_is_refused() -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        for process in (other.pid, 2**22 + 1):  # the latter is nobody's number
            answer = inspect(process)
            assert answer.returncode == 1
            assert str(process) in answer.stderr and "Traceback" not in answer.stderr
    finally:
        other.kill()
        other.wait()


def test_a_signal_asks_for_one_report() -> None:
    with running(3, "late", RONDE_REPORT_SIGNAL="usr2") as (job, processes):
        for process in processes.values():
            os.kill(process, signal.SIGUSR2)
        time.sleep(1.0)
        for process in processes.values():
            os.kill(process, signal.SIGKILL)
        text, _ = job.communicate(timeout=60)
        assert text.count("SIGUSR2 asks for a report") == 1, text
        check_report(text, processes)


def test_a_stall_shows_what_the_ranks_do() -> None:
    with running(3, "late", RONDE_STALL_WARNING="1", RONDE_STALL_TIMEOUT="3") as (job, processes):
        text, _ = job.communicate(timeout=60)
    assert text.count("gives up waiting") == 1, text
    # One of two calls ends first, and on one of two ranks, which may be past it when it reports.
    rows = [rf"\b{rank} +{processes[rank]} +in allreduce 'late'.* rank 1 " for rank in (0, 2)]
    assert any(re.search(row, text) for row in rows), text
    assert re.search(rf"\b1 +{processes[1]} +in no call", text), text


def test_a_bad_end_shows_what_the_ranks_do() -> None:
    with running(3, "raises") as (job, processes):
        text, _ = job.communicate(timeout=60)
    assert text.count("ronde: rank 1 ends the job\n") == 1, text
    for rank in (0, 2):
        assert re.search(rf"\b{rank} +{processes[rank]} +in allreduce 'late'.* rank 1 ", text), text
    assert re.search(rf"\b1 +{processes[1]} +in no call", text), text


def test_the_launcher_shows_what_ranks_did_that_were_killed() -> None:
    command = [
        sys.executable,
        "-m",
        "ronde",
        "run",
        "-np",
        "3",
        "--oversubscribe",
        OBSERVED,
        "late",
    ]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        processes: dict[int, int] = {}
        assert job.stdout is not None
        while len(processes) < 3:
            if found := re.search(r"rank (\d+) is process (\d+)", job.stdout.readline()):
                processes[int(found[1])] = int(found[2])
        time.sleep(1.0)
        os.kill(processes[1], signal.SIGKILL)
        began = time.monotonic()
        text, _ = job.communicate(timeout=60)
        assert time.monotonic() - began < 15
    finally:
        job.kill()
    assert job.returncode == 137
    assert text.count("ranks of the job on") == 1, text
    # The launcher may have ended the others before they were looked at.
    for rank in (0, 2):
        assert re.search(
            rf"\b{rank} +{processes[rank]} +(gone: )?in allreduce 'late'.* rank 1 ", text
        ), text
    assert re.search(rf"\b1 +{processes[1]} +gone: in no call", text), text


def test_counters_agree_with_what_was_called() -> None:
    job = jobs.run(2, "observed.py", "counts")
    assert job.status == 0, job.output
    for rank, text in re.findall(r"rank (\d): (\{.*?\})", job.output):
        more = eval(text)
        assert more["calls"] == 9  # five allreduces, Adasum and three barriers
        assert more["asynchronous_calls"] == more["slot_calls"] == 5
        assert more["failed_calls"] == 1
        assert 0 < more["retries"] < more["negotiations"]
        # The call that fails has come to its route.
        assert more["bytes_in_shared_memory"] == 5 * 4000 + 6 * 800 + 8 * (3 + int(rank))
        assert more["slot_bytes"] == 4000
        assert more["waits"] >= (rank == "0")
        assert (more["wait_seconds"] > 0.1) == (rank == "0")
    assert len(re.findall(r"rank \d: \{", job.output)) == 2


def test_counters_of_messages() -> None:
    job = jobs.run(2, "observed.py", "counts", RONDE_SHARED_MEMORY="0")
    assert job.status == 0, job.output
    for text in re.findall(r"rank \d: (\{.*?\})", job.output):
        more = eval(text)
        assert more["bytes_in_shared_memory"] == 0
        # Either is right for short ones.
        assert more["bytes_over_network"] + more["bytes_piggybacked"] >= 5 * 4000 + 6 * 800
        assert more["bytes_sent"] >= 5 * 4000


def test_metrics_are_served_and_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.prom"
    job = jobs.run(
        2, "observed.py", "metrics", RONDE_METRICS_PORT="19400", RONDE_METRICS_FILE=str(file)
    )
    assert job.status == 0, job.output
    assert job.output.count("served") == 2, job.output
    for rank in range(2):
        text = (tmp_path / f"metrics.rank{rank}.prom").read_text()
        assert "# TYPE ronde_calls_total counter\n" in text
        values = re.findall(rf'^ronde_(\w+)_total\{{rank="{rank}"\}} [\d.e-]+$', text, re.MULTILINE)
        assert len(values) == len(re.findall("^# HELP", text, re.MULTILINE)) > 10
    assert len(list(tmp_path.iterdir())) == 2


def events_of(file: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(file.read_text())
    return events


def check_nesting(events: list[dict[str, Any]]) -> None:
    """Two spans of a track are one in the other, or apart."""
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for each in events:
        if each["ph"] == "X":
            span = each["ts"], each["ts"] + each["dur"]
            tracks.setdefault((each["pid"], each["tid"]), []).append(span)
    for spans in tracks.values():
        around: list[float] = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while around and around[-1] <= begin + 1e-3:
                around.pop()
            assert not around or end <= around[-1] + 1e-3
            around.append(end)


@pytest.mark.parametrize("shared", ["1", "0"])
def test_a_timeline_of_all_ranks(tmp_path: Path, shared: str) -> None:
    file = tmp_path / "trace.json"
    # Names are UTF-8 wherever the job runs.
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    variables = {"RONDE_TIMELINE": str(file), "RONDE_SHARED_MEMORY": shared, **plain}
    job = jobs.run(3, "observed.py", "timeline", **variables)
    assert job.status == 0, job.output
    assert list(tmp_path.iterdir()) == [file]
    events = events_of(file)
    check_nesting(events)
    tracks = [
        (each["pid"], each["args"]["name"]) for each in events if each["name"] == "thread_name"
    ]
    assert len(set(tracks)) == len(tracks) and tracks.count((1, "blocking calls")) == 1
    spans = [each for each in events if each["ph"] == "X"]
    for rank in range(3):
        mine = [each for each in spans if each["pid"] == rank]
        names = [each["name"] for each in mine]
        assert names.count("allreduce b") == 3
        assert names.count("barrier β") == 1
        assert "agree" in names and "negotiate" in names
        data = [
            each["args"]
            for each in mine
            if each["name"] == ("in machine" if shared == "1" else "wire")
        ]
        assert all(each["by"] for each in data)
        if shared == "0":
            assert 400_000 in [each["bytes"] for each in data]
        calls = [each for each in events if each["pid"] == rank and each.get("cat") == "call"]
        for i in range(4):
            states = [each["ph"] for each in calls if each["name"] == f"allreduce a{i}"]
            assert states == ["b", "e"] * 3
        # All wait for rank 1 in the last barrier, and the clocks are one.
        last = next(each for each in mine if each["name"] == "barrier β")
        assert (last["dur"] > 50_000) == (rank != 1)
    names = {
        (each["pid"], each["args"]["name"]) for each in events if each["name"] == "process_name"
    }
    assert {(rank, name.split(" (")[0]) for rank, name in names} == {
        (rank, f"rank {rank}") for rank in range(3)
    }


def test_timelines_start_and_stop(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        job = jobs.run(3, "observed.py", "parts")
    assert job.status == 0, job.output
    assert job.output.count("none: no timeline is under way") == 3
    assert job.output.count("differs") == 3
    assert job.output.count("refused: ") == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["first.json", "second.json"]
    for file in tmp_path.iterdir():
        assert [each["name"] for each in events_of(file)].count("allreduce b") == 9


def test_timelines_that_are_not_joined(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        job = jobs.run(2, "observed.py", "unjoined")
    assert job.status == 0, job.output
    for rank, why in (
        (0, "MemoryError"),
        (0, "not text"),
        (1, "another rank"),
        (1, "another rank"),
    ):
        assert re.search(f"rank {rank}: .* its parts are kept: {why}", job.output), job.output
    assert job.output.count("ronde timeline merge") == 1
    names = {f"{name}.rank{rank}.json" for name in ("failed", "large") for rank in range(2)}
    assert {each.name for each in tmp_path.iterdir()} == names
    merge(tmp_path / "large.json")
    assert [each["name"] for each in events_of(tmp_path / "large.json")].count("allreduce b") == 6


def merge(file: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "ronde", "timeline", "merge", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert answer.returncode == 0, answer.stderr


def test_parts_of_a_job_that_was_killed_are_valid_and_join(tmp_path: Path) -> None:
    file = tmp_path / "β.json"
    job = jobs.run(3, "observed.py", "killed", RONDE_TIMELINE=str(file))
    assert job.status != 0
    parts = {rank: tmp_path / f"β.rank{rank}.json" for rank in range(3)}
    found = [events_of(part) for part in parts.values()]
    everything = [event for events in found for event in events]
    for events in found:
        assert [each["name"] for each in events].count("allreduce b") > 20
    merge(file)
    assert events_of(file) == everything
    check_nesting(events_of(file))
    parts[1].write_text(parts[1].read_text()[:-400])  # as after a loss of power
    merge(file)
    assert len(everything) - 20 < len(events_of(file)) < len(everything)


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "ronde", "timeline", "merge", str(tmp_path / "trace.json")],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 1
    assert "trace.rank0.json" in answer.stderr


def test_a_restart_leaves_no_record() -> None:
    job = jobs.run(2, "observed.py", "restarts")
    assert job.status == 0, job.output
    assert job.output.count("one record") == 2


def test_a_start_after_a_failure_begins_anew(tmp_path: Path) -> None:
    job = jobs.run(
        2,
        "observed.py",
        "fails_and_restarts",
        RONDE_STALL_TIMEOUT="3",
        RONDE_METRICS_PORT="19410",
        RONDE_METRICS_FILE=str(tmp_path / "metrics.prom"),
        RONDE_TIMELINE=str(tmp_path / "trace.json"),
    )
    assert job.status == 0, job.output
    assert job.output.count("had failed 1 times") == 2, job.output
    assert "cannot be used" not in job.output  # the port
    assert [each["name"] for each in events_of(tmp_path / "trace.json")].count(
        "allreduce again"
    ) == 2


def test_what_hangs_is_seen_among_many_pending_calls() -> None:
    job = jobs.run(2, "observed.py", "many")
    assert job.status == 0, job.output
    assert job.output.count("seen") == 2
