"""The end of `ronde run`, from the outside: what it returns, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jobs
import pytest
from commands import RONDE, TIMEOUT, ronde
from jobs import ranks_of, segments_of

# Each rank leaves its process number in the folder, does what the test wants, and would wait forever.
PROGRAM = """
import os, signal, subprocess, sys, time
rank = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")))
{body}
open(f"{{os.getpid()}}.pid", "w").close()
time.sleep(600)
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts 3 ranks that run `body` and then wait; the test goes on when all have done so."""
    started = []
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def start(body: str) -> subprocess.Popen[str]:
        (tmp_path / "program.py").write_text(PROGRAM.format(body=body))
        job = subprocess.Popen(
            [*RONDE, "run", "-np", "3", "program.py"],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(job)
        deadline = time.monotonic() + TIMEOUT
        while len(pids(tmp_path)) < 3:
            assert job.poll() is None, job.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return job

    yield start
    for job in started:
        job.kill()
    for pid in filter(jobs.alive, pids(tmp_path)):
        os.kill(pid, signal.SIGKILL)
    for job in started:
        job.communicate(timeout=TIMEOUT)


def pids(folder: Path) -> list[int]:
    return [int(file.stem) for file in folder.glob("*.pid")]


def left(folder: Path) -> list[int]:
    """The ranks that still live after some time."""
    return jobs.wait_until_gone(pids(folder), 10)


WAYS = {
    "exit": ("os._exit(3)", 3),
    "exception": ("raise RuntimeError('no such file')", 1),
    "exit like a signal": ("os._exit(9)", 9),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", 137),
}
INIT = "import ronde; ronde.init()"
MPI = "import mpi4py.MPI"  # starts it, and does not know of Ronde


@pytest.mark.parametrize("way", WAYS)
def test_a_rank_that_fails_early_ends_those_that_wait_for_it(way: str, tmp_path: Path) -> None:
    failure, status = WAYS[way]
    body = f"if rank == 1: {failure}\n{INIT}"
    (tmp_path / "program.py").write_text(PROGRAM.format(body=body))
    result = ronde("run", "-np", "2", "program.py", cwd=tmp_path)
    assert result.returncode == status, result.stderr
    assert left(tmp_path) == []
    if way == "exception":
        assert "RuntimeError: no such file" in result.stderr


@pytest.mark.parametrize("way", ["exit", "exception"])
def test_a_rank_that_fails_later_ends_the_others(way: str, tmp_path: Path) -> None:
    failure, status = WAYS[way]
    (tmp_path / "program.py").write_text(PROGRAM.format(body=f"{INIT}\nif rank == 1: {failure}"))
    result = ronde("run", "-np", "2", "program.py", cwd=tmp_path)
    assert result.returncode == status, result.stderr
    assert left(tmp_path) == []


def test_a_killed_rank_ends_the_job(
    job: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = job(INIT)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    output, _ = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 137, output
    assert left(tmp_path) == []


@pytest.mark.parametrize("body", [INIT, MPI])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(
    number: signal.Signals,
    body: str,
    job: Callable[[str], subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    running = job(body)
    segments = set[str]().union(*map(segments_of, pids(tmp_path)))
    running.send_signal(number)
    output, _ = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 128 + number, output
    assert left(tmp_path) == []
    assert [path for path in segments if os.path.exists(path)] == []


# Belongs to the MPI in use, loses its rank, and says that all went well (as MPICH's at times).
CARELESS = """#!/bin/sh
[ "$1" != --version ] || exec "{launcher}" --version
while [ "$1" != /bin/sh ]; do shift; done
"$@" &
until [ -e "{folder}/started" ]; do sleep 0.05; done
kill -KILL $!
"""


def test_a_launcher_that_lost_its_ranks_is_not_believed(tmp_path: Path) -> None:
    scripts = {
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "mpirun": CARELESS.format(launcher=jobs.mpi().launcher, folder=tmp_path),
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "program.py").write_text("import time; open('started', 'w'); time.sleep(600)")
    words = ["run", "--python", f"{tmp_path}/python", "-np", "1", "program.py"]
    result = ronde(*words, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "the launcher ended before 1 of its ranks" in result.stderr


def test_ranks_that_wait_in_vain_for_mpi_leave_no_segment(tmp_path: Path) -> None:
    body = f"if rank == 1: time.sleep(3); os._exit(3)\n{MPI}"
    (tmp_path / "program.py").write_text(PROGRAM.format(body=body))
    segments: set[str] = set()
    with subprocess.Popen([*RONDE, "run", "-np", "2", "program.py"], cwd=tmp_path) as running:
        while running.poll() is None:
            segments.update(*map(segments_of, ranks_of(running.pid)))
            time.sleep(0.05)
    assert running.returncode == 3
    assert [path for path in segments if os.path.exists(path)] == []


def test_processes_may_have_names_that_are_no_text(write: Callable[[str], str]) -> None:
    """All of this host are looked at, now and then and in the end."""
    set_name = 15  # of prctl(2)
    body = rf"import ctypes, time; ctypes.CDLL(None).prctl({set_name}, b'\xff', 0, 0, 0)"
    result = ronde("run", "-np", "1", write(f"{body}; time.sleep(1.5); print('done')"))
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


STUBBORN = "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)"


@pytest.mark.parametrize("times", [1, 2])
def test_stubborn_ranks_are_killed(
    times: int, job: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = job(STUBBORN)
    for _ in range(times):
        running.send_signal(signal.SIGINT)
        time.sleep(0.3)
    running.communicate(timeout=TIMEOUT)
    assert running.returncode == 130
    assert left(tmp_path) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_background_process_is_ended_too(
    job: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    body = (
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "open(f'{child.pid}.pid', 'w').close()"
    )
    running = job(body)
    while len(pids(tmp_path)) < 6:
        time.sleep(0.02)
    running.terminate()
    running.communicate(timeout=TIMEOUT)
    assert running.returncode == 143
    assert left(tmp_path) == []


def test_nothing_outlives_a_killed_ronde_run(
    job: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = job("")
    running.kill()
    assert left(tmp_path) == []
    # The launcher, which notices the end of its standard input, clears up after the ranks have gone.
    deadline = time.monotonic() + TIMEOUT
    while list((tmp_path / "temporary").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_user_signals_are_passed_on(
    job: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = job("signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))")
    running.send_signal(signal.SIGUSR1)
    output, _ = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 0, output


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As with nohup."""
    (tmp_path / "program.py").write_text("import time; time.sleep(1)")
    job = subprocess.Popen(
        [*RONDE, "run", "-np", "1", "program.py"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    while job.poll() is None:
        job.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    assert job.returncode == 0
