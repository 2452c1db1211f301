"""Collectives of dense tensors, submitted to the engine; what they have in common with Horovod's.

Synchronous functions submit too, and wait: so calls with a name may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import increment_version

from .. import context, handles
from .._calls import name_of, root_of
from ..arrays import view
from ..handles import Handle
from ..process_set import ProcessSet
from ..reductions import Adasum, Average, Op, Sum
from ._checks import FLOATING, communicator_in, require_tensor, rows_for_ranks
from ._handles import converted

__all__ = ["allgather", "allreduce", "alltoall", "broadcast", "names", "reducescatter"]

Tensor = Any
Factors = tuple[float, float]  # before the reduction, and after it
NONE: Factors = (1.0, 1.0)


def names(name: str | None, count: int) -> list[str | None]:
    """Of the tensors of a group."""
    if name is None:
        return [None] * count
    return [f"{name_of(name)}[{i}]" for i in range(count)]


def allreduce(
    tensor: Tensor,
    in_place: bool,
    op: Op,
    name: str | None,
    factors: Factors,
    process_set: ProcessSet,
    compression: Any = None,
) -> Handle[Tensor]:
    communicator = communicator_in(process_set)
    require_tensor(tensor)
    if tensor.dtype not in FLOATING and (op is Average or op is Adasum or factors != NONE):
        reduced = _in_integers(
            tensor,
            op,
            factors,
            communicator.size,
            lambda x, op: handles.allreduce_async(x, op, name, process_set=process_set),
        )
        return converted(reduced, partial(_copy, tensor)) if in_place else reduced
    submit = handles.allreduce_async
    if in_place:
        increment_version(tensor)
        submit = handles.allreduce_async_
    return submit(
        tensor,
        op,
        name,
        prescale_factor=factors[0],
        postscale_factor=factors[1],
        compression=compression,
        process_set=process_set,
    )


def reducescatter(
    tensor: Tensor, op: Op, name: str | None, factors: Factors, process_set: ProcessSet
) -> Handle[Tensor]:
    communicator = communicator_in(process_set)
    require_tensor(tensor)
    if op is Adasum:
        raise RuntimeError(
            "reducescatter cannot do op=hvd.Adasum, whose coefficients are those of whole tensors; use "
            "hvd.allreduce and take your part of its result"
        )
    if tensor.dim() == 0:
        raise ValueError("reducescatter needs a tensor of at least one dimension")
    if tensor.dtype not in FLOATING and (op is Average or factors != NONE):
        return _in_integers(
            tensor,
            op,
            factors,
            communicator.size,
            lambda x, op: handles.reducescatter_async(x, op, name, process_set=process_set),
        )
    return handles.reducescatter_async(
        tensor,
        op,
        name,
        prescale_factor=factors[0],
        postscale_factor=factors[1],
        process_set=process_set,
    )


def _in_integers(
    tensor: Tensor,
    op: Op,
    factors: Factors,
    size: int,
    submit: Callable[[Tensor, Op], Handle[Tensor]],
) -> Handle[Tensor]:
    """A reduction whose results have to be rounded, of integers or bools: toward zero."""
    if op is Adasum:
        raise ValueError(f"Adasum needs a floating type, not {tensor.dtype}")
    before, after = factors
    counts = tensor.detach()
    if counts.dtype is torch.bool:
        counts = counts.to(torch.int32)  # in which ranks are counted; in the end 0 is false

    def finish(reduced: Tensor) -> Tensor:
        if op is Average:
            if after == 1.0:
                reduced = torch.div(reduced, size, rounding_mode="trunc")
            else:
                reduced = (reduced.double() * after / size).to(reduced.dtype)
        else:
            reduced = _times(reduced, after)
        return reduced.to(tensor.dtype)

    return converted(submit(_times(counts, before), Sum if op is Average else op), finish)


def _copy(tensor: Tensor, values: Tensor) -> Tensor:
    tensor.detach().copy_(values)
    return tensor


def _times(integers: Tensor, factor: float) -> Tensor:
    if factor == 1.0:
        return integers
    return (integers.double() * factor).to(integers.dtype)


# While a rank has joined, the next two raise an error, as they do in Horovod.


def broadcast(
    tensor: Tensor, in_place: bool, root_rank: int, name: str | None, process_set: ProcessSet
) -> Handle[Tensor]:
    communicator = communicator_in(process_set)
    require_tensor(tensor)
    root = root_of(root_rank, process_set)
    if in_place:
        increment_version(tensor)
    else:
        tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    engine = context.world().engine
    call = engine.broadcast(communicator, tensor, root, name, needs_all=True)
    if call is not None:
        return Handle(call)
    seen = view(tensor, "tensor", writable=True)
    call = engine.broadcast(communicator, seen.operand, root, name, seen.dtype, needs_all=True)

    def written(_: Any) -> Tensor:
        seen.write_back()
        return tensor

    return Handle(call, written)


def allgather(
    tensor: Tensor, name: str | None, process_set: ProcessSet
) -> Handle[tuple[Tensor, list[int]]]:
    """Its result are the rows of all ranks, and how many came from each."""
    communicator = communicator_in(process_set)
    require_tensor(tensor)
    engine = context.world().engine
    call = engine.allgather(communicator, tensor, name, needs_all=True)
    if call is not None:
        return Handle(call)
    seen = view(tensor, "tensor")
    call = engine.allgather(communicator, seen.operand, name, seen.dtype, needs_all=True)
    return Handle(call, lambda done: (seen.wrap(done[0]), done[1]))


def alltoall(
    tensor: Tensor, splits: Any, name: str | None, process_set: ProcessSet
) -> Handle[tuple[Tensor, Tensor]]:
    """Its result are the rows that came, and how many from each rank."""
    communicator = communicator_in(process_set)
    require_tensor(tensor)
    rows = rows_for_ranks(tensor, splits, communicator.size)
    sent = tensor.detach()[: sum(rows)]
    call = handles.alltoall_async(sent, rows, name, process_set=process_set)
    return converted(call, lambda done: (done[0], torch.tensor(done[1], dtype=torch.int32)))
