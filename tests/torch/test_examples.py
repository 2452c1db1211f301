"""The examples for torch run as their first lines say, alone and on several ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ronde.cli import launch

pytest.importorskip("torch", reason="torch is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"


def table_of(ranks: int, example: str, *options: object) -> dict[str, float]:
    """The last lines of an example: names and figures."""
    command = [sys.executable, str(EXAMPLES / example), *map(str, options)]
    argv, variables = launch.command(ranks, command, mpi=launch.find_mpi())
    done = subprocess.run(
        argv if ranks > 1 else command,
        env=launch.environment() | (variables if ranks > 1 else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names, figures = (line.split() for line in done.stdout.splitlines()[-2:])
    return dict(zip(names, map(float, figures), strict=True))


def test_training_does_not_depend_on_the_number_of_ranks() -> None:
    alone, two = (table_of(ranks, "torch_train.py", "--epochs", 3) for ranks in (1, 2))
    assert alone["accuracy"] > 0.85 and two["ranks"] == 2
    assert two["loss"] == pytest.approx(alone["loss"], rel=0.02)


def test_the_language_model_learns_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    options = "--steps", 20, "--checkpoint", tmp_path / "model.pt", "--rows", 2, "--width", 32
    first = table_of(2, "torch_language_model.py", *options)
    assert first["loss"] < 4.5  # of 5.5 at the start
    assert table_of(1, "torch_language_model.py", *options)["loss"] < first["loss"]


def test_ddp_learns_with_compression() -> None:
    assert table_of(2, "torch_ddp.py", "--epochs", 5, "--compression", "int4")["accuracy"] > 0.9


@pytest.mark.frameworks
def test_lightning_learns() -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed")
    assert table_of(2, "torch_lightning.py", "--epochs", 5)["accuracy"] > 0.9
