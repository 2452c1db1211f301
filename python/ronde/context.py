"""The life of a job: `init`, who is who, process sets, `shutdown`."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from . import _core, _exits, _mpi, settings
from .errors import MismatchError, RondeError
from .process_set import ProcessSet, global_process_set

__all__ = [
    "World",
    "add_process_set",
    "cross_rank",
    "cross_size",
    "init",
    "is_initialized",
    "local_rank",
    "local_size",
    "rank",
    "remove_process_set",
    "shutdown",
    "size",
    "world",
]

_log = logging.getLogger("ronde")
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class World:
    """All that `init` made."""

    job: _exits.Job
    comm: Any  # Ronde's own communicator of the global set
    library: _core.MpiLibrary
    control: _core.Control
    settings: settings.Settings
    neighbours: list[tuple[int, int]]  # of each rank: its host's number, its rank on that host
    sets: dict[int, tuple[ProcessSet, Any]] = field(default_factory=dict)  # with its MPI communicator
    next_set: int = 0

    @property
    def pid(self) -> int:
        return self.job.pid


_world: World | None = None
_kept_for_ever: list[World] = []  # of jobs that failed: MPI may still use what they hold


def init(comm: Any = None, *, process_sets: Iterable[ProcessSet | list[int]] = ()) -> None:
    """Starts Ronde on all ranks of `comm`, which all must call it.

    `comm`: any mpi4py communicator, MPI's world by default; it is duplicated. Without a launcher the
    world has one rank. `process_sets`: sets to be added right away. Calling `init` again does nothing
    until `shutdown`.

    Raises `RondeError` in a `multiprocessing` child and where launcher and MPI library do not fit,
    `UnavailableError` where there is no MPI, `MismatchError` where versions or settings differ between
    the ranks, `StalledError` if a rank does not come.
    """
    global _world
    if _world is not None and _world.pid == os.getpid():
        return
    if multiprocessing.parent_process() is not None:
        raise RondeError(
            "ronde.init was called in a child process of multiprocessing, which is no rank of the job; "
            "call it in the program that the launcher started"
        )
    loaded = settings.load()
    MPI = _mpi.start(loaded.core.stall_warning, loaded.core.stall_timeout)
    _mpi.require_launcher(MPI)
    job = _exits.begin(MPI, shutdown)
    try:
        _world = _connect(job, MPI.COMM_WORLD if comm is None else comm, loaded)
    except MismatchError:
        raise  # on all ranks alike: nobody is left waiting
    except BaseException as error:
        job.failure = f"{type(error).__name__} in ronde.init: {error}"
        raise
    try:
        for process_set in process_sets:
            add_process_set(process_set)
    except BaseException:
        shutdown()
        raise


def _connect(job: _exits.Job, users_comm: Any, loaded: settings.Settings) -> World:
    MPI = job.MPI
    deadlines = loaded.core.stall_warning, loaded.core.stall_timeout
    comm = _mpi.duplicate(MPI, users_comm, *deadlines, _log.warning)
    control_comm = _mpi.duplicate(MPI, users_comm, *deadlines, _log.warning)
    rank, size = comm.Get_rank(), comm.Get_size()
    library = _mpi.library(MPI)

    def transport(handle: Any) -> _core.Transport:
        return library.transport(MPI._handleof(handle), handle.Get_rank(), handle.Get_size())

    control = _core.Control(transport(control_comm), where, _log.warning)
    job.control = control
    # Settings are read again once it is known how many ranks share this machine. Until all are known to
    # have the same, the checks are on.
    agreeing = _core.Communicator(
        control, transport(comm), 0, list(range(size)), _careful(loaded.core)
    )
    _compare_settings(agreeing, loaded)
    neighbours = _find_neighbours(agreeing)
    if users_comm == MPI.COMM_WORLD and MPI.get_vendor()[0] == "MPICH":
        # All ranks have started, and MPICH opens its segment by name only then.
        _mpi.remove_segments()
    local = sum(host == neighbours[rank][0] for host, _ in neighbours)
    final = settings.load(local_size=local)
    communicator = _core.Communicator(
        control, transport(comm), 0, list(range(size)), final.core
    )
    communicator.measure_link()
    world = World(job, comm, library, control, final, neighbours)
    world.sets[0] = (global_process_set, comm)
    world.next_set = 1
    global_process_set.ranks = list(range(size))
    global_process_set._attach(0, communicator)
    return world


def _careful(loaded: _core.Settings) -> _core.Settings:
    careful = _core.Settings()
    careful.spin = False
    careful.stall_warning, careful.stall_timeout = loaded.stall_warning, loaded.stall_timeout
    return careful


def _compare_settings(communicator: _core.Communicator, loaded: settings.Settings) -> None:
    detail = f"version {_core.__version__}, {loaded.changed or 'no setting changed'}"
    try:
        communicator.barrier(_core.Call("ronde.init", detail=detail))
    except MismatchError as error:
        raise MismatchError(
            f"{error}\nall ranks need the same version of Ronde and the same RONDE_ variables"
        ) from None


def _find_neighbours(communicator: _core.Communicator) -> list[tuple[int, int]]:
    """For each rank the number of its host, in order of first appearance, and its rank there."""
    import numpy as np

    name = f"{socket.gethostname()} {_boot_id()}".encode()
    lengths, names = communicator.allgather(
        _core.Call("ronde.init"), np.frombuffer(name, dtype=np.uint8), len(name), 1
    )
    hosts: dict[bytes, int] = {}
    counts: dict[int, int] = {}
    result = []
    start = 0
    for length in lengths:
        host = hosts.setdefault(names[start : start + length].tobytes(), len(hosts))
        result.append((host, counts.get(host, 0)))
        counts[host] = counts.get(host, 0) + 1
        start += length
    return result


def _boot_id() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return ""


def where() -> str:
    """`train.py:42`: the innermost place of this thread's stack that is not in Ronde."""
    frame = sys._getframe()
    while frame is not None and os.path.dirname(
        os.path.abspath(frame.f_code.co_filename)
    ).startswith(_PACKAGE):
        if frame.f_back is None:
            return ""
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def world() -> World:
    """The world, or a clear error."""
    if _world is None:
        raise RondeError("Ronde is not initialised; call ronde.init() first")
    if _world.pid != os.getpid():
        raise RondeError(
            "this process was forked after ronde.init() and is no rank of the job; "
            "start workers before ronde.init(), or with the 'spawn' method"
        )
    return _world


def is_initialized() -> bool:
    """Whether this process is a rank of a running job."""
    return _world is not None and _world.pid == os.getpid()


def rank() -> int:
    """This process' rank in the job, from 0 to `size() - 1`."""
    world()
    return global_process_set.rank()


def size() -> int:
    """The number of ranks in the job."""
    world()
    return global_process_set.size()


def local_rank() -> int:
    """This process' rank among those of its machine."""
    return world().neighbours[rank()][1]


def local_size() -> int:
    """The number of ranks on this machine."""
    neighbours = world().neighbours
    return sum(host == neighbours[rank()][0] for host, _ in neighbours)


def cross_rank() -> int:
    """The number of this machine among those that have a rank of this `local_rank`."""
    neighbours = world().neighbours
    host, local = neighbours[rank()]
    return sum(other < host and their == local for other, their in neighbours)


def cross_size() -> int:
    """The number of machines that have a rank of this `local_rank`."""
    neighbours = world().neighbours
    return sum(their == local_rank() for _, their in neighbours)


def add_process_set(process_set: ProcessSet | Iterable[int]) -> ProcessSet:
    """Makes a set usable. All ranks of the job must call it, members or not, with the same ranks.

    Returns the set. Raises `ValueError` for ranks that do not exist and for a set there is already,
    `MismatchError` where the ranks differ.
    """
    state = world()
    if not isinstance(process_set, ProcessSet):
        process_set = ProcessSet(process_set)
    members = process_set.ranks
    if members[-1] >= size():
        raise ValueError(f"there is no rank {members[-1]}: the job has {size()} ranks")
    for known, _ in state.sets.values():
        if known is process_set or known.ranks == members:
            raise ValueError(f"there is a process set of these ranks already: {known}")
    communicator = global_process_set._member()
    set_id = state.next_set
    communicator.barrier(_core.Call("add_process_set", detail=f"set {set_id}, ranks {members}"))
    included = rank() in members
    comm = state.comm.Split(0 if included else state.job.MPI.UNDEFINED, rank())
    own = None
    if included:
        comm.Set_errhandler(state.job.MPI.ERRORS_RETURN)
        transport = state.library.transport(
            state.job.MPI._handleof(comm), comm.Get_rank(), comm.Get_size()
        )
        own = _core.Communicator(
            state.control, transport, set_id, members, state.settings.core
        )
        own.set_link(communicator.link)
    state.next_set += 1
    state.sets[set_id] = (process_set, comm)
    process_set._attach(set_id, own)
    return process_set


def remove_process_set(process_set: ProcessSet) -> None:
    """Ends the use of a set. All ranks of the job must call it."""
    state = world()
    if process_set is global_process_set:
        raise ValueError("the global process set cannot be removed")
    process_set._require()
    set_id = process_set.process_set_id
    assert set_id is not None
    global_process_set._member().barrier(_core.Call("remove_process_set", detail=f"set {set_id}"))
    _, comm = state.sets.pop(set_id)
    _close_set(state, process_set, comm)


def _close_set(state: World, process_set: ProcessSet, comm: Any) -> None:
    communicator = process_set._communicator
    process_set._detach()
    if communicator is not None:
        communicator.close()
        comm.Free()


def shutdown() -> None:
    """Ends Ronde on this rank, after all ranks have come so far. `init` may follow.

    After a failure it waits for nobody and frees nothing: late ranks may still write to what was under
    way.
    """
    global _world
    if _world is None:
        return
    state = world()
    try:
        if state.control.failure:
            _kept_for_ever.append(state)
        else:
            _leave(state)
            _exits.end(state.job)
    finally:
        _world = None
        for process_set, _ in state.sets.values():
            process_set._detach()


def _leave(state: World) -> None:
    # The end is a call like any other: a rank that ends while others still work is told apart from them
    # here, by name, instead of leaving them to hang.
    global_process_set._member().barrier(_core.Call("shutdown, or the end of the program"), patient=True)
    for set_id in sorted(state.sets, reverse=True):
        if set_id != 0:
            _close_set(state, *state.sets[set_id])
    state.control.close()
    _close_set(state, *state.sets[0])
