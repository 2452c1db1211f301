"""Bugs of the kind that kernels have, planted one at a time: some build of the tests finds each."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import NATIVE, ROOT, needs_fakes, with_fakes

KERNELS = ROOT / "csrc/cuda/kernels"
FLAGS = {
    "plain": [],
    "address": ["-fsanitize=address", "-g"],
    "thread": ["-fsanitize=thread", "-g"],
}
REPORTS = {
    "address": "ERROR: AddressSanitizer",
    "thread": "WARNING: ThreadSanitizer: data race",
}
# Files whose kernels a test needs besides those of its name.
ALSO = {"low_rank": ["orthogonalise"]}


@dataclass(frozen=True)
class Bug:
    name: str
    file: str  # of the kernels
    kernels: str  # what is compiled, and tested
    right: str
    wrong: str
    build: str  # that finds it
    words: str = ""  # of its report


BUGS = (
    Bug(
        "a read past the end",
        "packets.h",
        "reduce",
        "i < head + (count - end);",
        "i <= head + (count - end);",
        "address",
    ),
    Bug(
        "a tail that is left out",
        "packets.h",
        "reduce",
        "i < head + (count - end);",
        "i < head;",
        "plain",
        "not so: same(",
    ),
    Bug(
        "a missing barrier after a scan",
        "top_k.cu",
        "top_k",
        "(rows >> 24);\n  __syncthreads();",
        "(rows >> 24);",
        "thread",
    ),
    Bug(
        "a missing barrier before totals are read",
        "low_rank.cu",
        "low_rank",
        "= static_cast<float>(total);\n      }\n      __syncthreads();",
        "= static_cast<float>(total);\n      }",
        "thread",
    ),
    Bug(
        "an addition that is not atomic",
        "top_k.cu",
        "top_k",
        "atomicAdd(&a.state->bins[kDigit][bin], bins[bin]);",
        "a.state->bins[kDigit][bin] += bins[bin];",
        "thread",
    ),
    Bug(
        "a shared array one short",
        "low_rank.cu",
        "low_rank",
        "__shared__ float sums[kWarps * kWarpRows][kMostVectors];",
        "__shared__ float sums[kWarps * kWarpRows - 1][kMostVectors];",
        "address",
    ),
    Bug(
        "a write past the end",
        "shared_scale.cu",
        "shared_scale",
        "    if (at < count) out[at] = static_cast<T>(steps[row]);",
        "    if (at <= count) out[at] = static_cast<T>(steps[row]);",
        "address",
    ),
    Bug(
        "an offset that is not checked",
        "sparse.cu",
        "sparse",
        "offset < source.length && (i == 0",
        "(i == 0",
        "address",
    ),
    Bug(
        "a sum in another order",
        "low_rank.cu",
        "low_rank",
        "by = kRow / 2; by > 0; by /= 2) x +=",
        "by = 1; by < kRow; by *= 2) x +=",
        "plain",
        "not so:",
    ),
    Bug(
        "a barrier in divergent code",
        "dots.cu",
        "dots",
        "    __syncthreads();\n    if (threadIdx.x < half)",
        "    if (threadIdx.x < half) __syncthreads();\n    if (threadIdx.x < half)",
        "plain",
        "emulation: threads",
    ),
)


def compiler(*arguments: str | Path) -> str:
    result = subprocess.run(["c++", *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


COMMON = [
    "-std=c++20",
    "-fPIC",
    "-O1",
    "-ffp-contract=off",
    f"-I{ROOT}/csrc",
    f"-I{ROOT}/tests/cuda",
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Compiles what the fake drivers of a build have in common, once."""

    @functools.cache
    def compiled(build: str) -> list[Path]:
        folder = tmp_path_factory.mktemp(build)
        objects = []
        for name, flags in (("emulation", []), ("fake_cuda", FLAGS[build])):
            objects.append(folder / f"{name}.o")
            source = ROOT / f"tests/cuda/{name}.cc"
            compiler(*COMMON, *flags, "-c", source, "-o", objects[-1])
        return objects

    return compiled


def fake_with(bug: Bug, driver: list[Path], folder: Path) -> None:
    """Builds a fake driver whose kernels have the bug."""
    source = (KERNELS / bug.file).read_text()
    assert source.count(bug.right) == 1, f"where {bug.file} has changed, so must this test"
    kernels = folder / "kernels"
    shutil.copytree(KERNELS, kernels)
    (kernels / bug.file).write_text(source.replace(bug.right, bug.wrong))
    compiler(
        *(*COMMON, *FLAGS[bug.build], "-shared", "-o", folder / "libcuda.so.1"),
        *(*driver, "-x", "c++"),
        *(kernels / f"{each}.cu" for each in (bug.kernels, *ALSO.get(bug.kernels, ()))),
    )


@needs_fakes
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_found(
    bug: Bug, driver: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    fake_with(bug, driver(bug.build), tmp_path)
    variables = {"EMULATION_ORDER": "backward", "ASAN_OPTIONS": "detect_leaks=0"}
    if bug.build != "plain":
        variables["LD_PRELOAD"] = compiler(f"-print-file-name=lib{bug.build[0]}san.so")
        variables["TSAN_OPTIONS"] = "halt_on_error=1"
    result = subprocess.run(
        [NATIVE / f"cuda_{bug.kernels}_test"],
        env=with_fakes(tmp_path, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode != 0, "nothing was found"
    assert (bug.words or REPORTS[bug.build]) in result.stdout
