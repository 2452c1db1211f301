"""No file of the current folder is run by what `ronde` starts for itself; the program's own are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RONDE = Path(sys.executable).with_name("ronde")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Modules by the names of those that are imported first, of Python and of others."""
    for module in ("json", "os", "argparse", "runpy", "numpy", "mpi4py", "ronde", "ctypes"):
        (tmp_path / f"{module}.py").write_text("open('RAN', 'w'); raise SystemExit('ran')\n")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("doctor",),
        ("run", "-np", "1", "--dry-run", "true"),
        ("bench", "-np", "2", "--sizes", "8", "--peers", "mpi", "--rounds", "1", "allreduce"),
    ],
    ids=lambda words: words[0],
)
def test_helpers_run_no_file_of_the_current_folder(hostile: Path, words: tuple[str, ...]) -> None:
    result = subprocess.run([RONDE, *words], cwd=hostile, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not (hostile / "RAN").exists()


def test_helpers_keep_pythonpath_and_programs_keep_their_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sitecustomize.py").write_text(f"open('{tmp_path}/SITE', 'a').write('x')\n")
    (tmp_path / "mine.py").write_text("print('mine was found')\n")
    result = subprocess.run(
        [RONDE, "run", "-np", "1", "python", "-c", "import mine"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
    )
    assert result.stdout == "mine was found\n", result.stderr
    # This command, the helper that asks for MPI, and the program.
    assert (tmp_path / "SITE").read_text() == "xxx"
