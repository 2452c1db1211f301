"""What Ronde says of GPUs, with the fake driver, without a driver, and with what does not suit."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import ronde
from fakes import needs_fakes, with_fakes

PROGRAM = "import ronde; print(ronde.cuda_built(), ronde.cuda_available())"
NCCL = "import ronde; print(ronde.nccl_version(), ronde.nccl_version())"


def says(program: str = PROGRAM, **variables: str) -> str:
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, env=with_fakes(**variables), capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def doctor(**variables: str) -> dict[str, tuple[str, str]]:
    command = [sys.executable, "-m", "ronde", "doctor", "--json"]
    result = subprocess.run(
        command, env=with_fakes(**variables), capture_output=True, text=True, check=True
    )
    findings = json.loads(result.stdout)["findings"]
    return {each["name"]: (each["mark"], each["text"]) for each in findings}


needs_kernels = pytest.mark.skipif(
    not ronde.cuda_built(), reason="this build has no kernels for GPUs"
)


@needs_fakes
@needs_kernels
def test_a_gpu_is_found() -> None:
    assert says(FAKE_CUDA_ARCHITECTURE="90") == "True True"
    found = doctor(FAKE_CUDA_DEVICES="2", FAKE_CUDA_ARCHITECTURE="86")
    mark, text = found["CUDA"]
    assert mark == "ok"
    assert "sm_70" in text
    assert "CUDA 12.9" in text
    assert found["GPU 0"] == found["GPU 1"] == ("ok", "Fake GPU, sm_86")


@needs_fakes
@needs_kernels
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FAKE_CUDA_DEVICES": "0"}, "finds no GPU"),
        ({"LD_LIBRARY_PATH": ""}, "there is no NVIDIA driver: libcuda.so.1"),
    ],
)
def test_what_is_missing_is_said(variables: dict[str, str], words: str) -> None:
    assert says(**variables) == "True False"
    mark, text = doctor(**variables)["CUDA"]
    assert mark == "--"
    assert words in text


@needs_fakes
@needs_kernels
def test_a_gpu_without_kernels_is_named() -> None:
    assert says(FAKE_CUDA_ARCHITECTURE="61") == "True False"
    mark, text = doctor(FAKE_CUDA_ARCHITECTURE="61")["GPU 0"]
    assert (mark, text) == ("--", "Fake GPU, sm_61: this build has no kernels for it")


@needs_fakes
def test_nccl_is_found() -> None:
    assert says(NCCL) == "2.28.9 2.28.9"
    assert doctor()["NCCL"] == ("ok", "2.28.9")


@pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is not None, reason="there may be a package with NCCL"
)
def test_missing_nccl_is_said() -> None:
    assert says(NCCL, LD_LIBRARY_PATH="") == "None None"
    mark, text = doctor(LD_LIBRARY_PATH="")["NCCL"]
    assert mark == "--"
    assert "nvidia-nccl-cu12" in text


def test_without_a_driver_all_else_works() -> None:
    assert says(LD_LIBRARY_PATH="") == f"{ronde.cuda_built()} False"
