"""The life of a job: `init`, who is who, process sets, `shutdown`."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import FrameType
from typing import Any

import numpy as np

from . import _core, _exits, _homes, _logs, _metrics, _mpi, _nccl, _report, _timeline, settings
from ._text import printable
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
FIRST_OWN = 1 << 20
"""The number of the first set that its members make alone. Those that all ranks make count from 0."""
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


@dataclass
class World:
    """All that `init` made."""

    job: _exits.Job
    comm: Any  # Ronde's own communicator of the global set
    control_comm: Any
    library: _core.MpiLibrary
    control: _core.Control
    record: _core.FlightRecord
    settings: settings.Settings
    homes: list[_homes.Home]  # of all ranks
    shares_memory: bool  # whether those ranks of the global set that are on one machine do
    engine: _core.Engine
    sets: dict[int, tuple[ProcessSet, Any]] = field(
        default_factory=dict
    )  # with its MPI communicator
    next_set: int = 0  # of those that all ranks make
    own_sets: int = 0  # those that this rank has given a number (own_sets.py)
    removed: dict[int, tuple[Any, bool]] = field(
        default_factory=dict
    )  # of those; as in _close_sets
    sent: int = 0  # bytes, by communicators that were closed
    counting: threading.RLock = field(default_factory=threading.RLock)  # while `sent` changes
    timeline: str | None = None  # the file of the one that is under way
    explained: set[str] = field(default_factory=set)  # what has been said in the log
    named: dict[str, Any] = field(default_factory=dict)  # compressors that calls give by name
    forked: bool = False  # whether this process is a child of the rank

    @cached_property
    def neighbours(self) -> list[tuple[int, int]]:
        """Of each rank the number of its host, and its rank there."""
        return _homes.count_neighbours(self.homes)


_FORKED = (
    "this process was forked after ronde.init() and is not a rank of the job; "
    "start workers before ronde.init(), or with the 'spawn' method"
)

_world: World | None = None
_changes = threading.RLock()  # of the world and its sets: one thread at a time
_last_record: _core.FlightRecord | None = None  # of the last `init`, also while the process ends
_kept_until_exit: list[World] = []  # of jobs that failed: MPI may still use what they hold


def init(comm: Any = None, *, process_sets: Iterable[ProcessSet | list[int]] = ()) -> None:
    """Start Ronde on all ranks of `comm`. All of them must call it.

    Without a launcher the job has one rank. Until `shutdown`, a second call does nothing.

    Args:
        comm: an mpi4py communicator, MPI's world by default. It is duplicated.
        process_sets: sets to add at once, as `add_process_set` does.

    Raises:
        RondeError: in a `multiprocessing` child, and where launcher and MPI library do not fit.
        UnavailableError: there is no MPI.
        MismatchError: versions or settings differ between the ranks.
        StalledError: a rank does not come.
        ValueError: a second call asks for something else than there is.
    """
    if _exits.was_forked():
        raise RondeError(_FORKED)
    if isinstance(process_sets, (str, ProcessSet)) or not isinstance(process_sets, Iterable):
        raise TypeError(f"process_sets must be a list of process sets, not {process_sets!r}")
    with _changes:
        _init(comm, list(process_sets))


def _init(comm: Any, wanted: list[ProcessSet | list[int]]) -> None:
    global _world, _last_record
    if _world is not None:
        _require_same(_world, comm, wanted)
        return
    if multiprocessing.parent_process() is not None:
        raise RondeError(
            "ronde.init was called in a child process of multiprocessing, which is not a rank of the job; "
            "call it in the program that the launcher started"
        )
    loaded = settings.load()
    MPI = _mpi.start(loaded.core.stall_warning, loaded.core.stall_timeout)
    _mpi.require_launcher(MPI)
    comm = MPI.COMM_WORLD if comm is None else comm
    _mpi.require_intracomm(MPI, comm)
    _logs.show(settings.log_level(), comm.Get_rank())
    job = _exits.begin(MPI, shutdown)
    if _last_record is not None:
        _last_record.retire()
        _last_record = None
    try:
        _world = _connect(job, comm, loaded)
    except MismatchError:
        raise  # on all ranks alike: nobody is left waiting
    except BaseException as error:
        job.failure = f"{type(error).__name__} in ronde.init: {error}"
        if job.reporter is not None:
            job.reporter.close()
        raise
    try:
        for process_set in wanted:
            add_process_set(process_set)
    except BaseException:
        shutdown()
        raise


def _require_same(state: World, comm: Any, wanted: list[ProcessSet | list[int]]) -> None:
    """Raises unless a second `init` asks for what there is."""
    if comm is not None:
        MPI = state.job.MPI
        _mpi.require_intracomm(MPI, comm)
        if MPI.Comm.Compare(comm, state.comm) not in (MPI.IDENT, MPI.CONGRUENT):
            raise ValueError(
                "comm: ronde.init was called before, with other ranks; call ronde.shutdown() first"
            )
    there = [each for number, (each, _) in state.sets.items() if number < FIRST_OWN]
    for each in wanted:
        known = there if isinstance(each, ProcessSet) else [known.ranks for known in there]
        if (each if isinstance(each, ProcessSet) else ProcessSet(each).ranks) not in known:
            raise ValueError(
                f"process_sets: ronde.init was called before, without {each!r}; add it by "
                "ronde.add_process_set()"
            )


def _connect(job: _exits.Job, users_comm: Any, loaded: settings.Settings) -> World:
    global _last_record
    MPI = job.MPI
    deadlines = loaded.core.stall_warning, loaded.core.stall_timeout
    comm = _mpi.duplicate(MPI, users_comm, *deadlines, _log.warning)
    control_comm = _mpi.duplicate(MPI, users_comm, *deadlines, _log.warning)
    rank, size = comm.Get_rank(), comm.Get_size()
    for text in settings.unknown() if rank == 0 else ():
        warnings.warn(text, stacklevel=4)
    library = _mpi.library(MPI)

    def transport(handle: Any) -> _core.Transport:
        return library.transport(MPI._handleof(handle), handle.Get_rank(), handle.Get_size())

    # The native core holds what it calls: not the job, which holds the native core.
    reporter = job.reporter = _report.Reporter()
    control = job.control = _core.Control(
        transport(control_comm),
        where,
        _log.warning,
        _log.debug if _log.isEnabledFor(logging.DEBUG) else None,
        lambda: reporter.report("this rank gives up waiting"),
    )
    record = _last_record = control.flight_record
    record.enter("in ronde.init")
    everybody = list(range(size))
    # Until all are known to have the same settings, those hold that need no agreement.
    careful = _core.Settings()
    careful.spin = False
    careful.stall_warning, careful.stall_timeout = deadlines
    first = _core.Communicator(control, transport(comm), 0, everybody, careful)
    _compare_settings(first, loaded)
    homes = _homes.find(first, record.path, _nccl.found(loaded.nccl))
    del first  # and its lane in the flight record
    host = homes[rank].host
    here = [home.record for home in homes if home.host == host]
    record.describe(rank, size, len(here), homes[0].token, host.split()[0])
    reporter.open(homes[0].token, here)
    if users_comm == MPI.COMM_WORLD:
        _core.remove_segment_names()  # all ranks have started MPI
    loaded.core.spin = _homes.has_a_core_of_its_own(homes[rank], homes)
    if not loaded.segment_bytes:
        loaded.core.segment_bytes = settings.usual_segment_bytes(_homes.machines(homes))
    communicator = _core.Communicator(control, transport(comm), 0, everybody, loaded.core)
    shares = _share_memory(communicator, everybody, homes, loaded)
    _nccl.connect(communicator, homes)
    # With less, the program promises that its threads take turns at MPI: it cannot know of this one.
    worker = MPI.Query_thread() == MPI.THREAD_MULTIPLE
    if loaded.report_signal is not None:
        reporter.listen(loaded.report_signal)
    core = _engine_core(loaded, homes, rank) if worker else None
    engine = _core.Engine(control, loaded.fusion_bytes, loaded.core.spin, worker, core)
    world = World(job, comm, control_comm, library, control, record, loaded, homes, shares, engine)
    world.sets[0] = (global_process_set, comm)
    world.next_set = 1
    global_process_set.ranks = everybody
    global_process_set._attach(0, communicator)
    if loaded.timeline is not None:
        _timeline.start(world, loaded.timeline)
    job.metrics += _metrics.start(world, rank, world.neighbours[rank][1])
    record.enter("")
    if rank == 0:
        hosts = len({home.host for home in homes})
        memory = "with shared memory" if shares else "without shared memory"
        moves = (
            "with a worker" if worker else "without a worker, as MPI allows one thread at a time"
        )
        about = _core.__version__, size, hosts, memory, _mpi.name(MPI), moves
        _log.info("version %s, %d ranks, hosts: %d, %s, %s, %s", *about)
    return world


def _engine_core(loaded: settings.Settings, homes: list[_homes.Home], rank: int) -> int | None:
    """On which this rank's worker runs; None for any."""
    if loaded.engine_core is None:
        return None
    local = sum(home.host == homes[rank].host for home in homes[:rank])
    return loaded.engine_core[local % len(loaded.engine_core)]


def _compare_settings(communicator: _core.Communicator, loaded: settings.Settings) -> None:
    detail = f"version {_core.__version__}, {loaded.changed or 'no setting changed'}"
    try:
        communicator.barrier(call=_core.Call("ronde.init", detail=detail))
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
    """Whether the members of each machine, which is known by its name, share memory: they find out."""
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
            " or ".join(printable(host.split()[0]) for host in counts),
        )
    return shares


def _in_library(file: str) -> bool:
    return file.startswith(_PACKAGE) or "-packages/torch/" in file


def where() -> str:
    """The call site, as `train.py:42`: the innermost line of this thread's stack that is neither in Ronde
    nor in torch, which calls back."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and _in_library(os.path.abspath(frame.f_code.co_filename)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def world() -> World:
    """The world, or a clear error."""
    if _world is None:
        raise RondeError("Ronde is not initialised; call ronde.init() first")
    if _world.forked:
        raise RondeError(_FORKED)
    return _world


def is_initialized() -> bool:
    """Return whether this process is a rank of a running job."""
    return _world is not None and not _world.forked


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
    world()
    if not isinstance(process_set, ProcessSet):
        process_set = ProcessSet(process_set)
    with _changes:
        return _add_process_set(world(), process_set)  # which another thread may have ended


def _add_process_set(state: World, process_set: ProcessSet) -> ProcessSet:
    members = process_set.ranks
    if members[-1] >= size():
        raise ValueError(f"there is no rank {members[-1]}: the job has {size()} ranks")
    for number, (known, _) in state.sets.items():
        if known is process_set or (known.ranks == members and number < FIRST_OWN):
            raise ValueError(f"there is a process set of these ranks already: {known}")
    communicator = global_process_set._member()
    set_id = state.next_set
    detail = f"set {set_id}, ranks {members}"
    call = _core.Call("add_process_set", detail=detail, needs_all=True)
    communicator.barrier(call=call)
    included = rank() in members
    with _monitored(state, "add_process_set"):
        comm = state.comm.Split(0 if included else state.job.MPI.UNDEFINED, rank())
    _attach(state, process_set, set_id, comm)
    state.next_set += 1
    return process_set


def _attach(state: World, process_set: ProcessSet, set_id: int, comm: Any) -> None:
    """Makes a set usable over its MPI communicator, which is null where this rank is no member."""
    own, MPI, members = None, state.job.MPI, process_set.ranks
    if comm != MPI.COMM_NULL:
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        transport = state.library.transport(MPI._handleof(comm), comm.Get_rank(), comm.Get_size())
        own = _core.Communicator(state.control, transport, set_id, members, state.settings.core)
        _share_memory(own, members, state.homes, state.settings)
        _nccl.connect(own, [state.homes[member] for member in members])
    state.sets[set_id] = (process_set, comm)
    process_set._attach(set_id, own)


def remove_process_set(process_set: ProcessSet) -> None:
    """End the use of a process set. All ranks of the job must call it.

    Raises:
        ValueError: for the global set.
        TypeError: for what is no `ProcessSet`.
        RondeError: the set is not in use.
    """
    world()
    if process_set is global_process_set:
        raise ValueError("the global process set cannot be removed")
    if not isinstance(process_set, ProcessSet):
        raise TypeError(
            "process_set must be a ronde.ProcessSet that ronde.add_process_set has returned, not "
            f"{process_set!r}"
        )
    with _changes:
        state = world()  # which another thread may have ended
        process_set._require()
        set_id = process_set.process_set_id
        assert set_id is not None
        own = process_set._communicator
        if own is not None and own.is_inside:  # before other ranks are made to wait for this one
            raise RondeError("a call cannot remove the process set that it is made on")
        call = _core.Call("remove_process_set", detail=f"set {set_id}", needs_all=True)
        global_process_set._member().barrier(call=call)
        _close_sets(state, [set_id], f"process set {set_id} was removed")


def _close_sets(
    state: World,
    set_ids: Iterable[int],
    why: str,
    others: dict[int, tuple[Any, bool]] | None = None,
) -> None:
    """Ends their use by all threads of this rank. All ranks of the job do so together, and free the
    communicators of which no rank still has messages under way. `others` are such by numbers, and whether
    this rank is done with them.
    """
    closed = dict(others or {})
    for set_id in set_ids:
        process_set, comm = state.sets.pop(set_id)
        communicator = _detach(state, process_set)
        closed[set_id] = comm, communicator is None or _close(state, communicator, why)
    # Not by MPI's own collectives: Open MPI's fail where it takes two hosts for one.
    open_still = _anywhere({number: not done for number, (_, done) in closed.items()})
    for number, (comm, _) in sorted(closed.items()):
        if not open_still[number] and comm != state.job.MPI.COMM_NULL:
            comm.Free()


def _anywhere(here: dict[int, int]) -> Counter[int]:
    """Of each number, what any rank of the job says, as bits; ranks may have different ones."""
    rows = np.array(list(here.items()), np.int64).reshape(-1, 2)
    found: Counter[int] = Counter()
    everywhere, _ = global_process_set._member().allgather(rows)
    for number, bits in everywhere.tolist():
        found[number] |= bits
    return found


def _detach(state: World, process_set: ProcessSet) -> _core.Communicator | None:
    """No call finds it any more. Returns its communicator, if this rank has one."""
    communicator = process_set._communicator
    with state.counting:
        process_set._detach()
        if communicator is not None:
            state.sent += communicator.bytes_sent
    return communicator


def _close(state: World, communicator: _core.Communicator, why: str) -> bool:
    """Ends all calls on it. Returns whether no messages can be under way."""
    blocking = communicator.close(why)  # first: nothing more is submitted then
    return state.engine.close(communicator, _pending(why)) and blocking


def _pending(why: str) -> str:
    return f"the call was pending when {why}"


_BUSY, _GAVE_UP = 1, 2
_CONTROL = -1  # instead of the number of a set


def _drain(state: World, why: str) -> bool:
    """Runs the asynchronous calls that are pending on all members of a set, at the end of all calls.
    Returns, alike on all ranks, whether no messages of the global set can be under way.
    """
    members = {
        set_id: process_set._communicator
        for set_id, (process_set, _) in sorted(state.sets.items())
        if process_set._communicator is not None
    }
    here = {
        set_id: state.engine.busy(each) * _BUSY | state.engine.gave_up(each) * _GAVE_UP
        for set_id, each in members.items()
    }
    anywhere = _anywhere({**here, **dict.fromkeys(state.removed, _GAVE_UP)})
    for set_id, communicator in members.items():
        if anywhere[set_id] == _BUSY:
            state.engine.drain(communicator, _pending(why))
    return not anywhere[0] & _GAVE_UP


@contextmanager
def _monitored(state: World, where: str) -> Iterator[None]:
    """For what mpi4py does with all ranks, which are known to have come."""
    core = state.settings.core
    watchdog = _core.Watchdog(
        f"in {where}: a rank has gone", core.stall_warning, core.stall_timeout
    )
    try:
        yield
    finally:
        watchdog.stop()


def _leave_world() -> None:
    """In a forked child, which is no rank: no collective finds its way any more."""
    if _world is not None:
        _world.forked = True
        _world.engine.forget()
        for process_set, _ in _world.sets.values():
            process_set._communicator = None


os.register_at_fork(after_in_child=_leave_world)


def shutdown() -> None:
    """End Ronde on this rank, after all ranks have called it. `init` may follow.

    The end of the program calls it, if the program has not. It waits as long as it takes, and warns
    from time to time. Calls of other threads that wait for ranks that are here raise an error, and
    so do all later ones. After a failure it waits for nobody and frees nothing, because late ranks
    may still write to the memory of the failed call.

    Raises:
        MismatchError: some ranks make another call. All ranks raise it, and Ronde stays usable.
    """
    if _world is None:
        return
    world()
    with _changes:
        _shutdown()


def _shutdown() -> None:
    global _world
    if _world is None:
        return
    state = _world
    if state.control.failure:
        state.engine.stop()
        for process_set, _ in state.sets.values():
            if process_set._communicator is not None:
                state.engine.close(process_set._communicator, "Ronde was shut down")
        with suppress(RondeError):
            state.record.timeline.stop()  # the part of this rank, by itself
        _close_metrics(state)
        _kept_until_exit.append(state)
    else:
        state.record.enter("in ronde.shutdown")
        try:
            _leave(state)
        except BaseException:
            state.record.enter("")
            raise
        _exits.end(state.job)
    if state.job.reporter is not None:
        state.job.reporter.close()
    state.record.enter("after ronde.shutdown, perhaps in MPI_Finalize")
    _world = None
    for process_set, _ in state.sets.values():
        process_set._detach()


def _stop_observing(state: World) -> None:
    if state.timeline is not None:
        try:
            _timeline.stop(state, agreed=True)
        except RondeError as error:
            if state.control.failure:
                raise
            _log.warning("%s", error)
    _close_metrics(state)


def _close_metrics(state: World) -> None:
    for each in state.job.metrics:
        each.close()
    state.job.metrics.clear()


def _leave(state: World) -> None:
    # The end is a call like any other: a rank that ends while others still work is
    # reported here by its number, instead of leaving them to hang.
    sets = [each._communicator for each, _ in state.sets.values() if each._communicator is not None]
    state.engine.leave(sets)
    global_process_set._member().end(_core.Call("shutdown, or the end of the program"), sets[1:])
    why = "Ronde was shut down"
    state.engine.stop()
    clean = _drain(state, why)
    _stop_observing(state)
    set_ids = sorted(state.sets, reverse=True)[:-1]
    control = state.control_comm, state.control.close()
    _close_sets(state, set_ids, why, {_CONTROL: control, **state.removed})
    process_set, comm = state.sets[0]
    communicator = process_set._member()
    _detach(state, process_set)
    _close(state, communicator, why)  # no blocking call is under way: the end was one, of all ranks
    if clean:
        comm.Free()
