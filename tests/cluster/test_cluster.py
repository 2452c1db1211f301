"""Several hosts: every collective across them, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jobs
import pytest

from benchmarks.cluster import hosts

pytestmark = pytest.mark.cluster
Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, str(Path(hosts.__file__).parent)]


@pytest.mark.parametrize(("ranks", "per_host"), [(3, 1), (6, 2), (5, 2)])
def test_all_collectives_across_hosts(run: Run, ranks: int, per_host: int) -> None:
    job = run(ranks, per_host, "collectives.py", str(per_host))
    assert job.returncode == 0, job.stdout
    assert "all collectives are right on 3 hosts" in job.stdout


def test_hosts_share_neither_memory_nor_processes(cluster: hosts.Cluster) -> None:
    def on(host: int, script: str) -> str:
        command = cluster.on_host(host, "sh", "-c", script)
        return subprocess.run(
            command, env=cluster.environment(), capture_output=True, text=True, check=True
        ).stdout

    on(0, "echo here > /dev/shm/ronde-test; echo here > $TMPDIR/ronde-test")
    assert on(0, "cat /dev/shm/ronde-test $TMPDIR/ronde-test") == "here\nhere\n"
    assert on(1, "ls /dev/shm $TMPDIR | grep -c ronde-test || true") == "0\n"
    names = {on(host, "hostname; readlink /proc/1/ns/pid") for host in range(cluster.hosts)}
    assert len(names) == cluster.hosts


def test_a_killed_rank_ends_the_job_on_all_hosts(run: Run, cluster: hosts.Cluster) -> None:
    job = run(3, 1, "killed.py")
    assert job.returncode != 0
    assert "nobody noticed" not in job.stdout
    deadline = time.monotonic() + 20
    while names := [name for name in jobs.commands_of(cluster.pid) if "killed.py" in name]:
        assert time.monotonic() < deadline, names
        time.sleep(0.1)


def test_a_timeline_of_all_hosts(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    program = str(jobs.PROGRAMS / "observed.py")
    job = run(6, 2, program, "timeline", RONDE_TIMELINE=str(file))
    assert job.returncode == 0, job.stdout
    assert list(tmp_path.iterdir()) == [file]
    events = json.loads(file.read_text())
    hosts_of_ranks = {each["args"]["name"] for each in events if each["name"] == "process_name"}
    assert len(hosts_of_ranks) == 6 and len({name.split("(")[1] for name in hosts_of_ranks}) == 3
    assert any(each["name"] == "wire" for each in events)
    last = {each["pid"]: each for each in events if each["name"] == "barrier last"}
    # Nobody leaves a barrier before the late rank has come, by clocks that are aligned.
    allowed = 5_000  # us: a round trip, at most
    for each in last.values():
        assert each["ts"] + each["dur"] > last[1]["ts"] - allowed
        assert each["ts"] < last[1]["ts"] + last[1]["dur"] + allowed


def test_up_run_down(cluster: hosts.Cluster, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], env=environment, capture_output=True, text=True, timeout=100
        )

    up = command("up", "--hosts", "2", "--rate", "100mbit")
    assert up.returncode == 0, up.stderr
    name = up.stdout.strip()
    try:
        job = command("run", "-np", "2", "--", "hostname")
        assert {f"{name}-1", f"{name}-2"} <= set(job.stdout.split())
        assert job.returncode == 0
        failed = command("run", "-np", "2", "--", "sh", "-c", "exit 3")
        assert failed.returncode in (3, 255)  # Intel MPI's launcher says 255
    finally:
        down = command("down")
    assert down.stdout.strip() == name
    assert list(tmp_path.rglob("*")) == [tmp_path / f"ronde-clusters-{os.getuid()}"]
    job = command("run", "--", "true")
    assert job.returncode == 2
    assert "no hosts are up" in job.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(
    cluster: hosts.Cluster, tmp_path: Path, how: signal.Signals
) -> None:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    words = ["run", "--hosts", "2", "--", "sleep", "1234.5"]
    process = subprocess.Popen([*COMMAND, *words], env=environment)
    try:
        deadline = time.monotonic() + 60
        while (
            sum("1234.5" in name for name in jobs.commands_of(process.pid)) < 3
        ):  # with the launcher
            assert time.monotonic() < deadline, "the job did not start"
            assert process.poll() is None
            time.sleep(0.05)
        below = jobs.ranks_of(process.pid)
        process.send_signal(how)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert jobs.wait_until_gone(below, 20) == []
    subprocess.run([*COMMAND, "down"], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == [tmp_path / f"ronde-clusters-{os.getuid()}"]


def test_a_rate_that_is_none_is_refused() -> None:
    assert hosts.bytes_per_second("100mbit") == 12.5e6
    assert hosts.bytes_per_second("unlimited") == math.inf
    for text in ("fast", "1 gbit", "0mbit", "-1gbit", "1gbit burst 9"):
        with pytest.raises(ValueError, match="a rate is written like"):
            hosts.bytes_per_second(text)
