"""Every block of code in README and docs runs as it is written, and prints what the page shows."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import blocks
import jobs
import pytest
from blocks import Block
from ronde.cli import launch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks.read(page)]
PROGRAMS = sorted({block.page for block in BLOCKS if block.is_python})
SHELL = [block for block in BLOCKS if block.is_shell]
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "csrc").rglob("*") if path.is_file()
)
SECONDS = 60  # for hangs


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    _, needed = launch.command(1, ["true"], mpi=jobs.mpi())  # for a plain mpirun
    return subprocess.run(
        command,
        cwd=folder,
        env=launch.environment() | needed | {"PATH": path, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where readers would be: beside the examples."""
    for name in ("examples", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize("page", PROGRAMS, ids=[page.name for page in PROGRAMS])
def test_python(page: Path, folder: Path) -> None:
    found = blocks.read(page)
    for needed in {block.comments["needs"] for block in found if "needs" in block.comments}:
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    ranks = max(int(block.comments.get("ranks", 1)) for block in found)
    command = [sys.executable, blocks.__file__, str(page)]
    if ranks > 1:
        command = launch.command(ranks, command, mpi=jobs.mpi())[0]
    result = run(command, folder)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("block", SHELL, ids=[block.name for block in SHELL])
def test_commands(block: Block, folder: Path) -> None:
    for name, text in blocks.files(block.page).items():
        (folder / name).write_text(text)
    for command, output in block.commands():
        result = run(["bash", "-c", command], folder)
        assert result.returncode == int(block.comments.get("status", 0)), result.stdout
        if output is not None:
            blocks.require_same(block, output, result.stdout)


def test_every_block_is_run_or_says_why_not() -> None:
    left = [
        block.name
        for block in BLOCKS
        if not (block.is_python or block.is_shell)
        and not block.comments.get("not run")
        and not block.comments.keys() & {"file", "output"}
        and not (block.language == "cpp" and block.text in SOURCES)
        and block.language != "mermaid"
    ]
    assert left == []
