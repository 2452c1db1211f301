"""`ronde doctor`: what was built, what was found, what is missing and how to get it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata

from .. import _core, cuda, settings
from .._text import printable
from ..errors import RondeError, UnavailableError
from . import launch
from .console import wrapped

__all__ = ["add_parser", "run"]

OK, ABSENT, BROKEN = "ok", "--", "BROKEN"

_TEST = """
import numpy, ronde
ronde.init()
total = ronde.allreduce(numpy.full(1000, 1.0 + ronde.rank()), op=ronde.Sum)
assert ronde.size() == 2 and (total == 3).all(), (ronde.size(), total)
"""
_TEST_SECONDS = 60.0
_NOT_TESTED = ("RONDE_TIMELINE", "RONDE_METRICS_PORT", "RONDE_METRICS_FILE")
_BY_HAND = "ronde run --verbose -np 2 python -c 'import ronde; ronde.init(); ronde.barrier()'"


@dataclass(frozen=True)
class Finding:
    mark: str
    name: str
    text: str
    remedy: str = ""  # where it is broken: what to do


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="show what was built and found, and try a job of 2 ranks",
        description="Shows what was built, what was found, and what is missing, and tries a job of "
        "2 ranks. The exit status is 1 if anything is broken.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    findings = []
    if not args.json:
        print(f"ronde {_core.__version__}")
    for finding in _examine():
        findings.append(finding)
        if not args.json:
            print(_shown(finding), flush=True)
    ok = all(finding.mark != BROKEN for finding in findings)
    if args.json:
        rows = [asdict(finding) for finding in findings]
        print(json.dumps({"version": _core.__version__, "ok": ok, "findings": rows}, indent=2))
    return 0 if ok else 1


def _shown(finding: Finding) -> str:
    remedy = f"repair: {finding.remedy}" if finding.remedy else ""
    text = f"\n{'':30}".join(
        wrapped(printable(line), indent=30)
        for line in [*finding.text.splitlines(), *remedy.splitlines()]
    )
    return f"{finding.mark:<8}{finding.name:<22}{text}"


def _examine() -> Iterator[Finding]:
    """All findings, one by one: the last ones take a while."""
    broken = False
    for finding in _found():
        broken |= finding.mark == BROKEN
        yield finding
    if broken:
        yield Finding(ABSENT, "job of 2 ranks", "not tried, because of what is broken")
    else:
        yield _job()


def _found() -> Iterator[Finding]:
    yield Finding(OK, "Python", platform.python_version())
    yield _simd()
    yield _cores()
    yield _shared_memory()
    yield from _cuda()
    yield _nccl()
    yield from _packages()
    yield from _variables()
    yield from _mpi()


def _simd() -> Finding:
    levels = ", ".join(_core.simd_levels())
    try:
        return Finding(OK, "SIMD", f"{_core.simd()}, of {levels}")
    except ValueError as error:
        return Finding(
            BROKEN, "SIMD", str(error), f"set RONDE_SIMD to one of {levels}, or unset it"
        )


def _cores() -> Finding:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    usable = settings.cores()
    quota = f"cgroup allows {usable}, " if usable != affinity else ""
    return Finding(
        OK, "cores", f"{usable} ({quota}affinity allows {affinity}, machine has {os.cpu_count()})"
    )


def _shared_memory() -> Finding:
    try:
        os.close(os.memfd_create("ronde"))
        mark, memfd = OK, "memfd_create works"
    except (AttributeError, OSError) as error:
        mark, memfd = ABSENT, f"memfd_create does not work ({error})"
    try:
        space = shutil.disk_usage("/dev/shm")
    except OSError:
        return Finding(mark, "shared memory", f"{memfd}; no /dev/shm")
    total, free = (f"{size / 2**20:.0f} MiB" for size in (space.total, space.free))
    return Finding(mark, "shared memory", f"{memfd}; /dev/shm has {total}, {free} free")


def _cuda() -> Iterator[Finding]:
    """Nothing here is broken: Ronde does without."""
    built = sorted(_core.cuda_architectures())
    if not built:
        text = "not built: install nvidia-cuda-nvrtc-cu12 where Ronde is built"
        yield Finding(ABSENT, "CUDA", text)
        return
    kernels = f"kernels for {', '.join(f'sm_{each}' for each in built)}"
    try:
        version = _core.cuda_driver_version()
        devices = _core.cuda_devices()
    except RondeError as error:
        yield Finding(ABSENT, "CUDA", f"{kernels}; {error}")
        return
    yield Finding(
        OK, "CUDA", f"{kernels}; driver for CUDA {version // 1000}.{version % 1000 // 10}"
    )
    for number, (name, architecture, has_kernels) in enumerate(devices):
        text = f"{name}, sm_{architecture}"
        if has_kernels:
            yield Finding(OK, f"GPU {number}", text)
        else:
            yield Finding(ABSENT, f"GPU {number}", f"{text}: this build has no kernels for it")


def _nccl() -> Finding:
    try:
        return Finding(OK, "NCCL", cuda.require_nccl())
    except RondeError as error:
        return Finding(ABSENT, "NCCL", str(error))


def _packages() -> Iterator[Finding]:
    """Looked up, not imported: some take seconds, and importing mpi4py's module starts MPI."""
    for module in ("numpy", "mpi4py", "torch", "cupy", "ml_dtypes"):
        for package in _PACKAGES.get(module, (module,)):
            with suppress(metadata.PackageNotFoundError):
                yield Finding(OK, module, metadata.version(package))
                break
        else:
            needed = module == "numpy"  # without mpi4py, MPI is broken
            mark, remedy = (BROKEN, f"`pip install {module}`") if needed else (ABSENT, "")
            yield Finding(mark, module, "not installed", remedy)


_PACKAGES = {"cupy": ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")}


def _variables() -> Iterator[Finding]:
    for variable in (*settings.VARIABLES.values(), settings.LOG):
        try:
            value = variable.read(os.environ)
        except ValueError as error:
            remedy = f"correct {variable.name}, or unset it; it means: {variable.meaning}"
            yield Finding(BROKEN, variable.name, str(error), remedy)
            continue
        shown = (
            printable(os.environ.get(variable.name, "").strip())
            or f"{_shown_value(value)} (default)"
        )
        yield Finding(OK, variable.name, f"{shown}: {variable.meaning}")
    for text in settings.unknown():
        yield Finding(ABSENT, "RONDE_ variables", text)


def _shown_value(value: object) -> str:
    if isinstance(value, (bool, float)):
        return f"{value:g}"
    return str(value) if value else "empty"


def _mpi() -> Iterator[Finding]:
    try:
        mpi = launch.find_library()
    except UnavailableError as error:
        yield _broken("MPI", error)
        return
    text = f"{mpi.name}, handles of {mpi.handle_bytes} bytes, thread level {mpi.thread_level}"
    if mpi.thread_level in ("single", "funneled"):
        yield Finding(
            BROKEN,
            "MPI",
            text,
            "Ronde needs at least serialized: set MPI4PY_RC_THREAD_LEVEL=multiple",
        )
    else:
        yield Finding(OK, "MPI", text)
    try:
        yield Finding(OK, "launcher", launch.find_launcher(mpi))
    except UnavailableError as error:
        yield _broken("launcher", error)


def _broken(name: str, error: Exception) -> Finding:
    text, _, remedy = str(error).partition("\n")
    return Finding(BROKEN, name, text, remedy)


def _job() -> Finding:
    """Started as a user would start it."""
    name = "job of 2 ranks"
    # An allocation of Slurm may have room for one rank only.
    start = launch.ronde("run", "-np", "2", "--oversubscribe")
    remedy = f"try it by hand: {_BY_HAND}"
    try:
        job = subprocess.run(
            [*start, *launch.helper(_TEST)],
            # Also where this is a rank itself; and files and ports are for the user's job.
            env=launch.environment() | dict.fromkeys(_NOT_TESTED, ""),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Finding(BROKEN, name, f"no result within {_TEST_SECONDS:.0f} s", remedy)
    if job.returncode == 0:
        return Finding(OK, name, "ronde.init and allreduce work")
    said = "\n".join(job.stdout.strip().splitlines()[-12:])
    return Finding(BROKEN, name, f"failed with status {job.returncode}\n{said}", remedy)
