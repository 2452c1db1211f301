"""Process sets, with the functions of Horovod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import context
from .. import process_set as sets
from ._checks import require_initialized

__all__ = [
    "ProcessSet",
    "add_process_set",
    "get_process_set_ids_and_ranks",
    "global_process_set",
    "remove_process_set",
]


class ProcessSet(sets.ProcessSet):
    """Some of the ranks, for the argument `process_set` of the collectives.

    It can be used after `hvd.add_process_set`, or after `hvd.init(process_sets=[...])`.

    Args:
        ranks_or_comm: ranks of the job, or an mpi4py communicator of them.

    Raises:
        ValueError: there are no ranks, or one occurs twice, or is negative.
        TypeError: these are no ranks.
    """

    def __init__(self, ranks_or_comm: Iterable[int] | Any) -> None:
        is_comm = hasattr(ranks_or_comm, "Get_group")
        super().__init__(_ranks_of(ranks_or_comm) if is_comm else ranks_or_comm)

    def included(self) -> bool | None:  # type: ignore[override]
        """Return whether this process is a member; None if the set is not in use."""
        return None if self.process_set_id is None else super().included()

    def rank(self) -> int | None:  # type: ignore[override]
        """Return this process' rank in the set; None if the set is not in use.

        Raises:
            ValueError: this process is not a member.
        """
        return None if self.process_set_id is None else super().rank()

    def size(self) -> int | None:  # type: ignore[override]
        """Return the number of ranks in the set; None if the set is not in use."""
        return None if self.process_set_id is None else super().size()


global_process_set = ProcessSet([0])
"""All ranks. Its `ranks` are set by `hvd.init`."""
global_process_set.__dict__ = sets.global_process_set.__dict__  # one set, seen by two classes


def _ranks_of(comm: Any) -> list[int]:
    """Of the members of a communicator of mpi4py, in the job."""
    from mpi4py import MPI

    job = context.world().comm if context.is_initialized() else MPI.COMM_WORLD
    group = comm.Get_group()
    ranks: list[int] = MPI.Group.Translate_ranks(group, None, job.Get_group())
    if MPI.UNDEFINED in ranks:
        raise ValueError("ranks_or_comm: a process of this communicator is not a rank of the job")
    return ranks


def add_process_set(process_set: sets.ProcessSet | Iterable[int]) -> sets.ProcessSet:
    """Make a process set usable. All ranks of the job must call it with the same ranks, members or
    not.

    Args:
        process_set: a `ProcessSet`, or the ranks of one.

    Returns:
        The set.

    Raises:
        ValueError: before `init`, if a rank does not exist, and if there is a set of these ranks
            already, as there is of all.
        HorovodInternalError: the ranks of the job gave different sets.
    """
    require_initialized()
    if not isinstance(process_set, sets.ProcessSet):
        process_set = ProcessSet(process_set)
    return context.add_process_set(process_set)


def remove_process_set(process_set: sets.ProcessSet) -> bool:
    """End the use of a process set. All ranks of the job must call it.

    Returns:
        Whether it was removed. The set of all ranks is not, nor is one that is not in use.

    Raises:
        ValueError: before `init`.
        TypeError: this is no `ProcessSet`.
        HorovodInternalError: the ranks of the job gave different sets.
    """
    require_initialized()
    if isinstance(process_set, sets.ProcessSet) and process_set.process_set_id in (None, 0):
        return False
    context.remove_process_set(process_set)
    return True


def get_process_set_ids_and_ranks() -> dict[int, list[int]]:
    """Return the ranks of each process set that is in use, by its number. That of all ranks is 0.

    Raises:
        ValueError: before `init`.
    """
    known = require_initialized().sets
    return {number: list(each.ranks) for number, (each, _) in known.items()}
