"""The fake driver and the programs that are tested with it, as `make gpu-rehearsal` builds them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "build/gpu-check/rehearsal"

needs_fakes = pytest.mark.skipif(
    not (NATIVE / "fake/libcuda.so.1").exists(),
    reason="needs the fake driver, which `make gpu-rehearsal` builds",
)


def with_fakes(folder: Path = NATIVE / "fake", **variables: str) -> dict[str, str]:
    """The environment of a process that finds the fakes of that folder."""
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), **variables}
