"""Synchronous collectives, through which gradients flow.

Each `Function` takes the tensors of a group. As in Horovod, what all ranks gather or get from a root is taken
to be used by all of them alike: such gradients are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import context
from ..handles import Handle
from ..process_set import ProcessSet
from ..reductions import Average, Op, Sum
from . import _submit
from ._checks import communicator_in
from ._handles import grouped

__all__ = ["Reducing", "allgather", "allreduce", "alltoall", "broadcast", "reducescatter"]

Tensors = Sequence[Any]
Names = Sequence[str | None]


class Reducing(NamedTuple):
    """How tensors are reduced."""

    op: Op
    factors: tuple[float, float]
    process_set: ProcessSet
    compression: Any = None  # of Ronde


def _differentiable(tensors: Tensors) -> bool:
    if torch.is_grad_enabled():
        for each in tensors:
            if getattr(each, "requires_grad", False):
                return True
    return False


def _unnamed(tensors: Tensors) -> Names:
    return [None] * len(tensors)


def allreduce(tensors: Tensors, names: Names, how: Reducing) -> Tensors:
    if _differentiable(tensors):
        return Allreduce.apply(how, names, *tensors)  # type: ignore[no-any-return]
    return _results(_submit.allreduces(tensors, False, how.op, names, *how[1:]))


def _results(calls: Sequence[Handle[Any]]) -> Sequence[Any]:
    """Of all, and no error before all have completed: the ranks go on together."""
    return [calls[0].wait()] if len(calls) == 1 else grouped(calls).wait()


class Allreduce(torch.autograd.Function):
    """Its gradient is reduced in the same way, without compression of Ronde: its residuals belong to the
    call of its name."""

    @staticmethod
    def forward(ctx: Any, how: Reducing, names: Names, *tensors: Tensor) -> Tensors:
        ctx.how = how
        return tuple(allreduce(tensors, names, how))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensors:
        how = ctx.how._replace(compression=None)
        return None, None, *allreduce(gradients, _unnamed(gradients), how)


def reducescatter(tensors: Tensors, names: Names, how: Reducing) -> Tensors:
    if _differentiable(tensors):
        return Reducescatter.apply(how, names, *tensors)  # type: ignore[no-any-return]
    op, factors, process_set, compression = how
    if compression is not None:
        raise ValueError("reducescatter takes no compression of Ronde; use hvd.Compression")
    return _results(_submit.reducescatters(tensors, op, names, factors, process_set))


class Reducescatter(torch.autograd.Function):
    """Its gradient is gathered, times the factors, and times the number of ranks for a sum."""

    @staticmethod
    def forward(ctx: Any, how: Reducing, names: Names, *tensors: Tensor) -> Tensors:
        if how.op not in (Average, Sum):
            raise ValueError(f"reducescatter with op={how.op} has no gradient; detach the tensor")
        ctx.how = how
        return tuple(reducescatter(tensors, names, how))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensors:
        op, (before, after), process_set, _ = ctx.how
        factor = before * after * (process_set.size() if op == Sum else 1)
        gathered = allgather(gradients, _unnamed(gradients), process_set)
        return None, None, *(gradient * factor for gradient in gathered)


def allgather(tensors: Tensors, names: Names, process_set: ProcessSet) -> Tensors:
    if _differentiable(tensors):
        return Allgather.apply(process_set, names, *tensors)  # type: ignore[no-any-return]
    return _gathered(tensors, names, process_set)[0]


def _gathered(
    tensors: Tensors, names: Names, process_set: ProcessSet
) -> tuple[Tensors, list[list[int]]]:
    """The rows of all ranks, and how many came from each."""
    named = zip(tensors, names, strict=True)
    results = _results([_submit.allgather(x, name, process_set) for x, name in named])
    return tuple(rows for rows, _ in results), [counts for _, counts in results]


class Allgather(torch.autograd.Function):
    """Its gradient is averaged, and each rank takes that of its rows."""

    @staticmethod
    def forward(ctx: Any, process_set: ProcessSet, names: Names, *tensors: Tensor) -> Tensors:
        gathered, ctx.counts = _gathered(tensors, names, process_set)
        ctx.process_set, ctx.shapes = process_set, [tensor.shape for tensor in tensors]
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensors:
        rank = communicator_in(ctx.process_set).rank
        mean = Reducing(Average, _submit.NONE, ctx.process_set)
        averaged = allreduce(gradients, _unnamed(gradients), mean)
        mine = (
            gradient.narrow(0, sum(counts[:rank]), counts[rank]).reshape(shape)
            for gradient, counts, shape in zip(averaged, ctx.counts, ctx.shapes, strict=True)
        )
        return None, None, *mine


def broadcast(tensor: Tensor, root_rank: int, name: str | None, process_set: ProcessSet) -> Tensor:
    if _differentiable([tensor]):
        return Broadcast.apply(tensor, root_rank, name, process_set)
    return _submit.broadcast(tensor, False, root_rank, name, process_set).wait()


class Broadcast(torch.autograd.Function):
    """Its gradient is averaged, and goes to the root."""

    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, root_rank: int, name: str | None, process_set: ProcessSet
    ) -> Tensor:
        ctx.root_rank, ctx.process_set = root_rank, process_set
        return broadcast(tensor, root_rank, name, process_set)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensors:
        mean = Reducing(Average, _submit.NONE, ctx.process_set)
        [averaged] = allreduce([gradient], [None], mean)
        is_root = context.rank() == ctx.root_rank
        return averaged if is_root else torch.zeros_like(averaged), None, None, None


def alltoall(
    tensor: Tensor, splits: Any, name: str | None, process_set: ProcessSet
) -> tuple[Tensor, Tensor]:
    if _differentiable([tensor]):
        return Alltoall.apply(tensor, splits, name, process_set)  # type: ignore[no-any-return]
    return _submit.alltoall(tensor, splits, name, process_set).wait()


class Alltoall(torch.autograd.Function):
    """Its gradient goes back by the splits that were received. Rows that went nowhere have none."""

    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, splits: Any, name: str | None, process_set: ProcessSet
    ) -> tuple[Tensor, Tensor]:
        joined, received = alltoall(tensor, splits, name, process_set)
        ctx.mark_non_differentiable(received)
        ctx.received, ctx.process_set, ctx.shape = received, process_set, tensor.shape
        return joined, received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Tensors:
        returned, _ = alltoall(gradient, ctx.received, None, ctx.process_set)
        kept = ctx.shape[0] - returned.shape[0]
        if kept:
            returned = torch.cat([returned, returned.new_zeros(kept, *ctx.shape[1:])])
        return returned, None, None, None
