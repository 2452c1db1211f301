"""allgather, broadcast, alltoall, join and barrier, with the arguments of Horovod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .. import handles, joining
from ..handles import Handle
from ..process_set import ProcessSet
from . import _autograd, _submit
from ._checks import communicator_in, listed, require_initialized
from ._handles import converted, enter, grouped
from .process_sets import global_process_set

__all__ = [
    "allgather",
    "allgather_async",
    "alltoall",
    "alltoall_async",
    "barrier",
    "broadcast",
    "broadcast_",
    "broadcast_async",
    "broadcast_async_",
    "grouped_allgather",
    "grouped_allgather_async",
    "join",
]


def allgather(
    tensor: Tensor, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Tensor:
    """Join the tensors of all ranks along the first dimension, in the order of the ranks.

    Its gradient is averaged, and each rank takes that of its rows. `requires_grad` must be the same on all
    ranks.

    Args:
        tensor: its first dimension may differ between ranks; the other dimensions and the dtype may
            not. A tensor of no dimensions counts as one row.
        name: by which the ranks know the call, with its kind and process set.
        process_set: the ranks that take part.

    Returns:
        A new tensor of shape `(rows of all ranks, *tensor.shape[1:])`.

    Raises:
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
        HorovodInternalError: the ranks describe the call differently, one has failed, or is in `join`.
    """
    return _autograd.allgather([tensor], [name], process_set)[0]


def allgather_async(
    tensor: Tensor, name: str | None = None, process_set: ProcessSet = global_process_set
) -> int:
    """Submit an allgather. The arguments are those of `allgather`.

    Returns:
        A handle for `synchronize` and `poll`. Until it has completed the tensor must not be changed.
    """
    return enter(_rows(_submit.allgather(tensor, name, process_set)))


def grouped_allgather(
    tensors: Iterable[Tensor],
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """Apply `allgather` to each of several tensors, and return the results as a list.

    Args:
        tensors: they may differ in shape and dtype; as many on all ranks, in the same order.
        name: becomes `name[0]`, `name[1]` and so on. The other arguments are those of `allgather`.
    """
    found = listed(tensors)
    return list(_autograd.allgather(found, _submit.names(name, len(found)), process_set))


def grouped_allgather_async(
    tensors: Iterable[Tensor],
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit an allgather of several tensors. The arguments are those of `grouped_allgather`.

    Returns:
        A handle, for which `synchronize` returns the tuple of the results.
    """
    found = listed(tensors)
    named = zip(found, _submit.names(name, len(found)), strict=True)
    return enter(grouped([_rows(_submit.allgather(x, name, process_set)) for x, name in named]))


def _rows(call: Handle[tuple[Tensor, list[int]]]) -> Handle[Tensor]:
    return converted(call, lambda result: result[0])


def broadcast(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Return the tensor of `root_rank`, as a new tensor.

    Its gradient is averaged, and goes to the root. `requires_grad` must be the same on all ranks, though only
    the root gets a gradient.

    Args:
        tensor: of the same shape and dtype on all ranks. Only the values of the root count.
        root_rank: a rank of the job, in the process set.
        name: by which the ranks know the call, with its kind and process set.
        process_set: the ranks that take part.

    Raises:
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
        HorovodInternalError: the ranks describe the call differently, one has failed, or is in `join`.
    """
    return _autograd.broadcast(tensor, root_rank, name, process_set)


def broadcast_(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Give a tensor the values of that of `root_rank`, and return it. The arguments are those of
    `broadcast`. Nothing is differentiated.
    """
    return _submit.broadcast(tensor, True, root_rank, name, process_set).wait()


def broadcast_async(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit a broadcast. The arguments are those of `broadcast`.

    Returns:
        A handle for `synchronize` and `poll`.
    """
    return enter(_submit.broadcast(tensor, False, root_rank, name, process_set))


def broadcast_async_(
    tensor: Tensor,
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit a broadcast in place, as `broadcast_async` does. Until it has completed the tensor must not be
    changed.
    """
    return enter(_submit.broadcast(tensor, True, root_rank, name, process_set))


def alltoall(
    tensor: Tensor,
    splits: Any = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Send rows of a tensor to all ranks, the first `splits[0]` of them to rank 0 and so on.

    Its gradient goes back the same way. `requires_grad` must be the same on all ranks. Rows for a rank that
    is in `join` are lost.

    Args:
        tensor: of at least one dimension. Without `splits` its rows must divide by the number of ranks.
        splits: how many rows go to each rank: a list, or a tensor of int32. Rows beyond them stay here.
        name: by which the ranks know the call, with its kind and process set.
        process_set: the ranks that take part.

    Returns:
        The rows that came, joined in the order of the senders. With `splits` a pair: these rows, and how
        many came from each rank, as a tensor of int32 on the CPU.

    Raises:
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
        HorovodInternalError: the ranks describe the call differently, or one has failed.
    """
    result = _autograd.alltoall(tensor, splits, name, process_set)
    return result[0] if splits is None else result


def alltoall_async(
    tensor: Tensor,
    splits: Any = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit an alltoall. The arguments are those of `alltoall`.

    Returns:
        A handle, for which `synchronize` returns the pair of the rows and how many came from each rank.
        Until it has completed the tensor must not be changed.
    """
    return enter(_submit.alltoall(tensor, splits, name, process_set))


def join(device: int = -1) -> int:
    """Say that this rank has no more data, and return when all ranks have said so.

    Until then it takes part in the allreduces of the others with what changes nothing: zeros for a sum, say.
    Averages divide by the number of all ranks. allgather and broadcast raise an error on the others
    meanwhile. alltoall and reducescatter do not: what they have for this rank is lost, and it sends nothing.

    Args:
        device: without meaning: Ronde finds where the tensors of the others are.

    Returns:
        The rank that has joined last.

    Raises:
        ValueError: before `init`.
        HorovodInternalError: a rank has failed, or the ranks differ.
    """
    require_initialized()
    return joining.join()


def barrier(process_set: ProcessSet = global_process_set) -> None:
    """Return when all ranks of the set have called it.

    Raises:
        ValueError: before `init`, and if this rank is not in the set.
        HorovodInternalError: a rank has failed.
    """
    communicator_in(process_set)
    handles.barrier_async(process_set=process_set).wait()
