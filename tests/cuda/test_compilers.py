"""The kernels by a second compiler, and the program that compiles them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT

CUDA = ROOT / "csrc/cuda"
SOURCES = sorted((CUDA / "kernels").glob("*.cu"))


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_nvcc_takes_them(source: Path, tmp_path: Path) -> None:
    options = ["-std=c++17", "-fmad=false", "-arch=sm_75", "-cubin", "-Werror", "all-warnings"]
    result = subprocess.run(
        ["nvcc", *options, source, "-o", tmp_path / "cubin"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def compile_with(text: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    source = folder / "kernel.cu"
    source.write_text(text)
    command = [sys.executable, CUDA / "compile.py", source, *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    result = compile_with("", tmp_path, "--nvrtc", str(tmp_path / "libnvrtc.so"))
    assert result.returncode == 1
    assert "libnvrtc.so: cannot open shared object file" in result.stderr
    assert "Traceback" not in result.stderr
