"""The life of a job: `init`, who is who, process sets, `shutdown`."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from types import FrameType
from typing import Any

from . import _core, _exits, _homes, _mpi, settings, tuning
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
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


@dataclass
class World:
    """All that `init` made."""

    job: _exits.Job
    comm: Any  # Ronde's own communicator of the global set
    control_comm: Any
    library: _core.MpiLibrary
    control: _core.Control
    settings: settings.Settings
    homes: list[_homes.Home]  # of all ranks
    shares_memory: bool  # whether those ranks of the global set that are on one machine do
    tuning: tuning.Tuning | None  # where a file was read that holds for this job
    sets: dict[int, tuple[ProcessSet, Any]] = field(
        default_factory=dict
    )  # with its MPI communicator
    next_set: int = 0

    @property
    def pid(self) -> int:
        return self.job.pid

    @cached_property
    def neighbours(self) -> list[tuple[int, int]]:
        """Of each rank the number of its host, and its rank there."""
        return _homes.count_neighbours(self.homes)


_FORKED = (
    "this process was forked after ronde.init() and is no rank of the job; "
    "start workers before ronde.init(), or with the 'spawn' method"
)

_world: World | None = None
_kept_for_ever: list[World] = []  # of jobs that failed: MPI may still use what they hold


def init(comm: Any = None, *, process_sets: Iterable[ProcessSet | list[int]] = ()) -> None:
    """Start Ronde on all ranks of `comm`. All of them must call it.

    Without a launcher the job has one rank. A second call does nothing until `shutdown`.

    Args:
        comm: an mpi4py communicator, MPI's world by default. It is duplicated.
        process_sets: sets to add at once, as `add_process_set` does.

    Raises:
        RondeError: in a `multiprocessing` child, and where launcher and MPI library do not fit.
        UnavailableError: there is no MPI.
        MismatchError: versions or settings differ between the ranks.
        StalledError: a rank does not come.
    """
    global _world
    if _exits.was_forked():
        raise RondeError(_FORKED)
    if _world is not None:
        return
    if multiprocessing.parent_process() is not None:
        raise RondeError(
            "ronde.init was called in a child process of multiprocessing, which is no rank of the job; "
            "call it in the program that the launcher started"
        )
    loaded = settings.load()
    MPI = _mpi.start(loaded.core.stall_warning, loaded.core.stall_timeout)
    _mpi.require_launcher(MPI)
    comm = MPI.COMM_WORLD if comm is None else comm
    _mpi.require_intracomm(MPI, comm)
    job = _exits.begin(MPI, shutdown)
    try:
        _world = _connect(job, comm, loaded)
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

    control = job.control = _core.Control(transport(control_comm), where, _log.warning)
    everybody = list(range(size))
    # Until all are known to have the same settings, those hold that need no agreement.
    careful = _core.Settings()
    careful.spin = False
    careful.stall_warning, careful.stall_timeout = deadlines
    first = _core.Communicator(control, transport(comm), 0, everybody, careful)
    _compare_settings(first, loaded)
    homes = _homes.find(first)
    if users_comm == MPI.COMM_WORLD:
        _core.remove_segment_names()  # all ranks have started MPI
    loaded.core.spin = _homes.has_a_core_of_its_own(homes[rank], homes)
    if not loaded.segment_bytes:
        loaded.core.segment_bytes = settings.usual_segment_bytes(_homes.machines(homes))
    tuned = _read_tuning(first, _mpi.name(MPI), homes, loaded)
    communicator = _core.Communicator(control, transport(comm), 0, everybody, loaded.core)
    shares = _share_memory(communicator, everybody, homes, loaded)
    _set_link(communicator, everybody, homes, tuned)
    world = World(job, comm, control_comm, library, control, loaded, homes, shares, tuned)
    world.sets[0] = (global_process_set, comm)
    world.next_set = 1
    global_process_set.ranks = everybody
    global_process_set._attach(0, communicator)
    return world


def _compare_settings(communicator: _core.Communicator, loaded: settings.Settings) -> None:
    detail = f"version {_core.__version__}, {loaded.changed or 'no setting changed'}"
    try:
        communicator.barrier(_core.Call("ronde.init", detail=detail))
    except MismatchError as error:
        raise MismatchError(
            f"{error}\nall ranks need the same version of Ronde and the same RONDE_ variables"
        ) from None


def _share_memory(
    communicator: _core.Communicator,
    members: Iterable[int],
    homes: list[_homes.Home],
    loaded: settings.Settings,
) -> bool:
    """Whether the members of each machine, which is told by its name, share memory: they find out."""
    hosts = [homes[member].host for member in members]
    counts = Counter(hosts)
    if not loaded.shared_memory or set(counts.values()) == {1}:
        return False
    if len(set(counts.values())) > 1:
        if communicator.rank == 0:
            _log.info("the machines have different numbers of ranks: all exchange messages")
        return False
    machines = {host: number for number, host in enumerate(counts)}
    shares = communicator.share_memory([machines[host] for host in hosts])
    if not shares and communicator.rank == 0:
        _log.warning(
            "the ranks on %s cannot share memory and will exchange messages instead, which is slower "
            "(unless something else is said above, they may be in different containers)",
            " or ".join(host.split()[0] for host in counts),
        )
    return shares


def _read_tuning(
    first: _core.Communicator, mpi: str, homes: list[_homes.Home], loaded: settings.Settings
) -> tuning.Tuning | None:
    """What holds for this job of a tuning file, if its ranks send each other messages."""
    hosts = [home.host for home in homes]
    if len(homes) == 1 or (len(set(hosts)) == 1 and loaded.shared_memory):
        return None
    tuned = tuning.agree(first, mpi, hosts, loaded.segment_bytes, _log.warning)
    if tuned is not None:
        loaded.core.segment_bytes = tuned.segment_bytes
    return tuned


def _set_link(
    communicator: _core.Communicator,
    members: Iterable[int],
    homes: list[_homes.Home],
    tuned: tuning.Tuning | None,
) -> None:
    """What messages between the members cost, where it is known. Otherwise they measure it."""
    hosts = [homes[member].host for member in members]
    if tuned is not None and (link := tuned.link_between(hosts)) is not None:
        communicator.set_link(link)


def where() -> str:
    """`train.py:42`: the innermost place of this thread's stack that is not in Ronde."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def world() -> World:
    """The world, or a clear error."""
    if _world is None:
        raise RondeError("Ronde is not initialised; call ronde.init() first")
    if _world.pid != os.getpid():
        raise RondeError(_FORKED)
    return _world


def is_initialized() -> bool:
    """Return whether this process is a rank of a running job."""
    return _world is not None and _world.pid == os.getpid()


def rank() -> int:
    """Return this process' rank in the job, from 0 to `size() - 1`."""
    world()
    return global_process_set.rank()


def size() -> int:
    """Return the number of ranks in the job."""
    world()
    return global_process_set.size()


def local_rank() -> int:
    """Return this process' rank among those of its machine, from 0 to `local_size() - 1`."""
    return world().neighbours[rank()][1]


def local_size() -> int:
    """Return the number of ranks on this machine."""
    neighbours = world().neighbours
    return sum(host == neighbours[rank()][0] for host, _ in neighbours)


def cross_rank() -> int:
    """Return the number of this machine among those that have a rank of this `local_rank`."""
    neighbours = world().neighbours
    host, local = neighbours[rank()]
    return sum(other < host and their == local for other, their in neighbours)


def cross_size() -> int:
    """Return the number of machines that have a rank of this `local_rank`."""
    local = local_rank()
    return sum(their == local for _, their in world().neighbours)


def add_process_set(process_set: ProcessSet | Iterable[int]) -> ProcessSet:
    """Make a process set usable. All ranks of the job must call it with the same ranks, members or
    not.

    Args:
        process_set: a `ProcessSet`, or the ranks of one.

    Returns:
        The set.

    Raises:
        ValueError: a rank does not exist, or there is a set of these ranks already.
        MismatchError: the ranks of the job gave different sets.
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
    core = state.settings.core
    watchdog = _core.Watchdog(
        "in add_process_set: a rank has gone", core.stall_warning, core.stall_timeout
    )
    try:
        comm = state.comm.Split(0 if included else state.job.MPI.UNDEFINED, rank())
    finally:
        watchdog.stop()
    own = None
    if included:
        comm.Set_errhandler(state.job.MPI.ERRORS_RETURN)
        transport = state.library.transport(
            state.job.MPI._handleof(comm), comm.Get_rank(), comm.Get_size()
        )
        own = _core.Communicator(state.control, transport, set_id, members, state.settings.core)
        _share_memory(own, members, state.homes, state.settings)
        _set_link(own, members, state.homes, state.tuning)
    state.next_set += 1
    state.sets[set_id] = (process_set, comm)
    process_set._attach(set_id, own)
    return process_set


def remove_process_set(process_set: ProcessSet) -> None:
    """End the use of a process set. All ranks of the job must call it.

    Raises:
        ValueError: for the global set.
        TypeError: for what is no `ProcessSet`.
        RondeError: the set is not in use.
    """
    state = world()
    if process_set is global_process_set:
        raise ValueError("the global process set cannot be removed")
    if not isinstance(process_set, ProcessSet):
        raise TypeError(f"a ronde.ProcessSet is needed, not {type(process_set).__name__}")
    process_set._require()
    set_id = process_set.process_set_id
    assert set_id is not None
    global_process_set._member().barrier(_core.Call("remove_process_set", detail=f"set {set_id}"))
    _, comm = state.sets.pop(set_id)
    _close_set(process_set, comm)


def _close_set(process_set: ProcessSet, comm: Any) -> None:
    included = process_set._communicator is not None
    process_set._detach()
    if included:
        comm.Free()


def _detach_sets() -> None:
    """In a forked child, which is no rank: no collective finds its way any more."""
    if _world is not None:
        for process_set, _ in _world.sets.values():
            process_set._communicator = None


os.register_at_fork(after_in_child=_detach_sets)


def shutdown() -> None:
    """End Ronde on this rank, after all ranks have called it. `init` may follow.

    The end of the program calls it, if the program has not. After a failure it waits for nobody and
    frees nothing, because late ranks may still write to the memory of the failed call.

    Raises:
        MismatchError: some ranks make another call. All ranks raise it, and Ronde stays usable.
    """
    global _world
    if _world is None:
        return
    state = world()
    if state.control.failure:
        _kept_for_ever.append(state)
    else:
        _leave(state)
        _exits.end(state.job)
    _world = None
    for process_set, _ in state.sets.values():
        process_set._detach()


def _leave(state: World) -> None:
    # The end is a call like any other: a rank that ends while others still work is told apart from them
    # here, by name, instead of leaving them to hang.
    global_process_set._member().barrier(
        _core.Call("shutdown, or the end of the program"), patient=True
    )
    for set_id in sorted(state.sets, reverse=True):
        if set_id != 0:
            _close_set(*state.sets[set_id])
    if state.control.close():
        state.control_comm.Free()
    _close_set(*state.sets[0])
