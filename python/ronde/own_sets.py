"""Process sets that their members make alone, while other ranks do something else.

The members first agree by messages, with a deadline: the lowest gives the set its number, which no other set
of the job has. Only when all have come, MPI makes a communicator. Each member ends the use of such a set by
itself; what must be freed together is freed in `ronde.shutdown`, where all ranks are.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from . import _mpi, context
from .errors import RondeError, StalledError
from .process_set import ProcessSet, global_process_set

__all__ = ["add", "remove"]

Array = npt.NDArray[np.int64]


def add(process_set: ProcessSet) -> ProcessSet:
    """Make a process set usable. Its members must call it, and only they.

    Several sets may have the same ranks. Ranks that are members of two sets must make them in the same order.

    Args:
        process_set: a set that is not in use.

    Raises:
        ValueError: a rank does not exist, or this process is no member.
        RondeError: the members make different sets.
        StalledError: a member does not come within `RONDE_STALL_TIMEOUT`.
        RankFailedError: a rank has failed meanwhile.
    """
    with context._changes:
        state = context.world()
        members = process_set.ranks
        if members[-1] >= context.size():
            raise ValueError(f"there is no rank {members[-1]}: the job has {context.size()} ranks")
        if context.rank() not in members:
            raise ValueError(
                f"this rank, {context.rank()}, is not a member of {process_set}, and only members make it"
            )
        if process_set.process_set_id is not None:
            raise ValueError(f"{process_set} is in use already")
        set_id = _agreed_number(state, members)
        with context._monitored(state, "the making of a process set"):
            group = state.comm.Get_group().Incl(members)
            comm = state.comm.Create_group(group, _mpi.FREE_TAG)
            group.Free()
        context._attach(state, process_set, set_id, comm)
        return process_set


def remove(process_set: ProcessSet) -> None:
    """End the use of such a set by this rank. Calls that are pending on it fail.

    It waits for nobody. If the set is not in use, it does nothing.
    """
    with context._changes:
        if not context.is_initialized() or process_set.process_set_id is None:
            return
        state = context.world()
        set_id = process_set.process_set_id
        if process_set is global_process_set or set_id < context.FIRST_OWN:
            raise ValueError(f"{process_set} was not made by its members alone")
        communicator = process_set._communicator
        if communicator is not None and communicator.is_inside:
            raise RondeError("a call cannot remove the process set that it is made on")
        _, comm = state.sets.pop(set_id)
        context._detach(state, process_set)
        assert communicator is not None
        done = context._close(state, communicator, f"process set {set_id} was removed")
        state.removed[set_id] = comm, done


def _agreed_number(state: context.World, members: list[int]) -> int:
    """The number that the lowest member gives, once all have come with the same ranks."""
    lowest, others = members[0], members[1:]
    digest = zlib.crc32(np.array(members, np.int64).tobytes())
    if context.rank() != lowest:
        answer = np.zeros(2, np.int64)
        _exchange(state, members, {lowest: np.array([digest, 0])}, {lowest: answer})
    else:
        digests = {other: np.zeros(2, np.int64) for other in others}
        _exchange(state, members, {}, digests)
        number = context.FIRST_OWN + state.own_sets * context.size() + lowest
        state.own_sets += 1
        answer = np.array([all(each[0] == digest for each in digests.values()), number])
        _exchange(state, members, dict.fromkeys(others, answer), {})
    if not answer[0]:
        raise RondeError(
            f"the members of process set {members} make different sets at the same time; ranks that are "
            "members of several must make them in the same order"
        )
    return int(answer[1])


def _exchange(
    state: context.World, members: list[int], sent: dict[int, Array], received: dict[int, Array]
) -> None:
    """Messages to and from members."""
    requests = [(state.comm.Isend(each, to, _mpi.FREE_TAG), to) for to, each in sent.items()]
    requests += [(state.comm.Irecv(into, of, _mpi.FREE_TAG), of) for of, into in received.items()]
    what = f"the making of process set {members} by its members"
    timeout = state.settings.core.stall_timeout
    try:
        _mpi.Messages(requests, sent, received).wait(state.control, what, timeout)
    except TimeoutError as error:
        state.control.fail(str(error))
        raise StalledError(f"{error} (RONDE_STALL_TIMEOUT)") from None
