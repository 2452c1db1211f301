"""The life of a job, who is who in it, and what was built: with the functions of Horovod."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .. import _mpi, context, cuda, observing, process_set, settings
from . import _handles
from ._checks import require_initialized
from ._variables import from_horovod
from .process_sets import ProcessSet

__all__ = [
    "ccl_built",
    "cross_rank",
    "cross_size",
    "cuda_built",
    "ddl_built",
    "gloo_built",
    "gloo_enabled",
    "init",
    "is_homogeneous",
    "is_initialized",
    "local_rank",
    "local_size",
    "mpi_built",
    "mpi_enabled",
    "mpi_threads_supported",
    "nccl_built",
    "rank",
    "rocm_built",
    "shutdown",
    "size",
    "start_timeline",
    "stop_timeline",
]

_log = logging.getLogger("ronde")


def init(
    comm: Any = None,
    process_sets: Iterable[process_set.ProcessSet | Iterable[int]] | str | None = None,
) -> None:
    """Start Ronde on all ranks. Without a launcher the job has one rank. A second call does nothing.

    Variables of Horovod that mean what one of Ronde means (docs/migrating.md) hold where that is not set.

    Args:
        comm: ranks of MPI's world, or an mpi4py communicator. MPI's world by default. All of its
            ranks must call it, and no others. A list is sorted: for another order pass a communicator.
        process_sets: sets to add at once, as `add_process_set` does. "dynamic" is Horovod's word for
            what always holds here: that sets may be added later.

    Raises:
        ValueError: this rank is not one of `comm`, a variable or a process set is wrong, or a second call
            asks for something else than there is.
        HorovodInternalError: MPI is missing or does not fit the launcher, or the ranks differ.
    """
    if process_sets is None or process_sets == "dynamic":
        process_sets = []
    if isinstance(process_sets, str):
        raise ValueError(f'process_sets must be a list or "dynamic", not {process_sets!r}')
    sets = [
        each if isinstance(each, process_set.ProcessSet) else ProcessSet(each)
        for each in process_sets
    ]
    with from_horovod() as taken:
        own = _communicator_of(comm)
        try:
            context.init(comm if own is None else own, process_sets=sets)
        finally:
            if own is not None:
                own.Free()  # Ronde has made a duplicate
    for name, (value, theirs) in taken.items() if context.rank() == 0 else ():
        _log.warning("%s is taken as %s=%s", theirs, name, value)


def _communicator_of(comm: Any) -> Any:
    """A new one of these ranks of MPI's world, in their order; None if it was no list of ranks."""
    if comm is None or hasattr(comm, "Get_rank"):
        return None
    ranks = ProcessSet(comm).ranks
    core = settings.load().core
    world = _mpi.start(core.stall_warning, core.stall_timeout).COMM_WORLD
    if ranks[-1] >= world.Get_size() or world.Get_rank() not in ranks:
        raise ValueError(
            f"comm: this is rank {world.Get_rank()} of {world.Get_size()}, and must be one of {ranks}, "
            "which must all exist"
        )
    return world.Create_group(world.Get_group().Incl(ranks))


def shutdown() -> None:
    """End Ronde on this rank, after all ranks have called it. `init` may follow."""
    context.shutdown()
    _handles.forget()


def is_initialized() -> bool:
    """Return whether `init` has been called, and `shutdown` has not."""
    return context.is_initialized()


def rank() -> int:
    """Return this process' rank in the job. `ValueError` before `init`, as in all functions below."""
    require_initialized()
    return context.rank()


def size() -> int:
    """Return the number of ranks in the job."""
    require_initialized()
    return context.size()


def local_rank() -> int:
    """Return this process' rank among those of its machine."""
    require_initialized()
    return context.local_rank()


def local_size() -> int:
    """Return the number of ranks on this machine."""
    require_initialized()
    return context.local_size()


def cross_rank() -> int:
    """Return the number of this machine among those that have a rank of this `local_rank`."""
    require_initialized()
    return context.cross_rank()


def cross_size() -> int:
    """Return the number of machines that have a rank of this `local_rank`."""
    require_initialized()
    return context.cross_size()


def is_homogeneous() -> bool:
    """Return whether all machines have the same number of ranks."""
    hosts = Counter(host for host, _ in require_initialized().neighbours)
    return len(set(hosts.values())) == 1


def mpi_threads_supported() -> bool:
    """Return whether the program may call MPI from several threads, beside Ronde."""
    MPI = require_initialized().job.MPI
    return bool(MPI.Query_thread() == MPI.THREAD_MULTIPLE)


def start_timeline(file_path: str, mark_cycles: bool = False) -> None:
    """Write what happens from now on to a timeline, until `stop_timeline`. All ranks must call it.

    Args:
        file_path: of the timeline of all ranks, which rank 0 writes.
        mark_cycles: without meaning, as Ronde has no cycles.

    Raises:
        HorovodInternalError: a timeline is under way, or a file cannot be written on some rank.
    """
    require_initialized()
    observing.start_timeline(file_path)


def stop_timeline() -> None:
    """Complete the timeline, whose file is there then. All ranks must call it."""
    require_initialized()
    observing.stop_timeline()


def mpi_built() -> bool:
    """Return True: Ronde works over MPI. Before `init` too, as what follows."""
    return True


def mpi_enabled() -> bool:
    """Return True: Ronde works over MPI."""
    return True


def gloo_built() -> bool:
    """Return False: Ronde does not use Gloo."""
    return False


def gloo_enabled() -> bool:
    """Return False: Ronde does not use Gloo."""
    return False


def nccl_built() -> int:
    """Return the version of the NCCL that Ronde finds, 22809 for 2.28.9; 0 if it finds none."""
    version = cuda.nccl_version()
    if version is None:
        return 0
    major, minor, patch, *_ = (*map(int, version.split(".")), 0, 0)
    return 10_000 * major + 100 * minor + patch


def cuda_built() -> bool:
    """Return whether this build of Ronde has kernels for GPUs of CUDA."""
    return cuda.cuda_built()


def rocm_built() -> bool:
    """Return False: Ronde does not use ROCm."""
    return False


def ddl_built() -> bool:
    """Return False: Ronde does not use IBM's DDL."""
    return False


def ccl_built() -> bool:
    """Return False: Ronde does not use Intel's oneCCL."""
    return False
