"""What all commands have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import RONDE, launched, ronde
from ronde import __version__


def test_the_version_needs_neither_numpy_nor_mpi() -> None:
    program = (
        "import sys; sys.argv = ['ronde', '--version']; from ronde.cli import main\n"
        "try: main()\n"
        "finally: print(*(name for name in ('numpy', 'mpi4py') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == f"ronde {__version__}\n\n"


@pytest.mark.parametrize("words", ["explain allreduce --bytes 64M --ranks 4", "--help", "doctor"])
def test_a_reader_that_leaves_is_no_error(words: str) -> None:
    # The pipe is closed before anything is written.
    program = f"exec 3>&1; {{ sleep 1; {' '.join(RONDE)} {words} 2>&3; }} | true"
    result = subprocess.run(["sh", "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("explian", "invalid choice: 'explian'"),
        ("explain allreduec --bytes 1 --ranks 2", "invalid choice: 'allreduec'"),
        ("explain allreduce --bytes 64Mb/s --ranks 2", "'64Mb/s' is not like 8, 4K, 64M or 64MiB"),
        ("explain allreduce --bytes 1K", "required: --ranks"),
        ("bench alreduce", "'alreduce' is not one of allreduce"),
        ("bench compress --link 10", "'10' is not like 100Mbit or 10Gbps"),
        ("run --no-such-option x.py", "unrecognized arguments: --no-such-option"),
    ],
)
def test_a_mistake_is_one_line(words: str, complaint: str) -> None:
    result = ronde(*words.split())
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert complaint in line
    assert line.startswith("ronde")


def test_one_rank_reports_a_mistake() -> None:
    assert launched(3, "bench", "alreduce").stderr.count("'alreduce' is not one of") == 1


def test_results_say_where_they_are(tmp_path: Path) -> None:
    words = ["--sizes", "64", "--json", "x.json", "--plot", "x.svg"]
    result = ronde("bench", "allreduce", *words, cwd=tmp_path)
    assert result.stdout.splitlines()[-2:] == ["# written to x.json", "# written to x.svg"]
    assert (tmp_path / "x.json").exists() and (tmp_path / "x.svg").exists()
