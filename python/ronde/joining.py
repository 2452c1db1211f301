"""Ranks that have no more data, while others have."""

from __future__ import annotations

from . import context
from ._calls import communicator_of
from .process_set import ProcessSet, global_process_set

__all__ = ["join"]

_AVERAGES = ("size", "contributing")


def join(average: str = "size", *, process_set: ProcessSet | None = global_process_set) -> int:
    """Say that this rank has no more data, and return when all ranks have said so.

    Until then this rank takes part in what the others call, blocking or not, with values that change
    nothing: zeros in a sum or an average, ones in a product, the greatest value of the type in a
    minimum and the least in a maximum; no rows in allgather, gather and alltoall; no object in
    allgather_object. What it gets is dropped. Asynchronous calls that it has pending take part with
    their values. Where it is the root of a broadcast or a scatter, and for `add_process_set`,
    `remove_process_set` and `shutdown`, all ranks raise an error.

    Arrays that would be compressed are reduced exactly while a rank has joined.

    The wait has no deadline. Calls of the other ranks take longer meanwhile, as they tell this one
    what they call.

    Args:
        average: what averages divide by while ranks have joined: "size" for the number of all
            ranks, as before; "contributing" for the number of those that contribute. The same on
            all ranks.
        process_set: the ranks whose calls this one takes part in; None for all.

    Returns:
        The rank that has joined last, a rank of the job: after it no other has seen more data. Of
        several that joined between two calls it is the highest.

    Raises:
        ValueError: `average` is neither.
        MismatchError: the other ranks made different calls, or one that needs this rank; or ranks
            that join give different averages. All ranks raise it.
        RankFailedError: a rank failed, or has left.
        RondeError: `RONDE_CHECK` is 0, or another thread of this rank is in join.
    """
    if average not in _AVERAGES:
        raise ValueError(f'average must be "size" or "contributing", not {average!r}')
    communicator = communicator_of(process_set)
    return context.world().engine.join(communicator, average == "contributing")
