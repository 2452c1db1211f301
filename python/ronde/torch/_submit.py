"""Collectives of dense tensors, submitted to the engine; what they have in common with Horovod's.

Synchronous functions submit too, and wait: so calls with a name may come in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .._calls import name_of, root_of
from ..handles import Handle, allreduce_async, allreduce_async_, alltoall_async, reducescatter_async
from ..handles import _plain_allreduce as plain_allreduce
from ..handles import _submit as submit
from ..handles import _written as written
from ..process_set import ProcessSet
from ..reductions import Adasum, Op
from ._checks import (
    FLOATING,
    communicator_in,
    require_name,
    require_op,
    require_tensor,
    rows_for_ranks,
)
from ._handles import converted
from ._rounded import Factors, is_rounded, require_rounded, rounded

__all__ = [
    "allgather",
    "allreduce",
    "allreduces",
    "alltoall",
    "broadcast",
    "names",
    "reducescatter",
    "reducescatters",
]

NONE: Factors = (1.0, 1.0)


def names(name: str | None, count: int) -> list[str | None]:
    """Of the tensors of a group."""
    require_name(name)
    if name is None:
        return [None] * count
    return [f"{name_of(name)}[{i}]" for i in range(count)]


def allreduces(
    tensors: Sequence[Tensor],
    in_place: bool,
    op: Op,
    names: Sequence[str | None],
    factors: Factors,
    process_set: ProcessSet,
    compression: Any = None,
) -> list[Handle[Tensor]]:
    """Of a group. All of them are looked at before anything is submitted."""
    if len(tensors) > 1:
        for tensor in tensors:
            _require_reducible(tensor, op, factors)
            if in_place and tensor.is_neg():
                raise ValueError("a tensor is read only, and this operation works in place")
    return [
        allreduce(tensor, in_place, op, name, factors, process_set, compression)
        for tensor, name in zip(tensors, names, strict=True)
    ]


def _require_reducible(tensor: Tensor, op: Op, factors: Factors) -> None:
    require_tensor(tensor)
    require_op(op)
    if is_rounded(tensor, op, factors):
        require_rounded(tensor, op)


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
    require_name(name)
    if compression is None and isinstance(op, Op) and getattr(tensor, "dtype", None) in FLOATING:
        # Nothing is to be seen to if the core takes the tensor as it is, which a short call would notice.
        plain = plain_allreduce(tensor, in_place, op, name, factors, process_set)
        if plain is not None:
            if in_place:
                _note_change(tensor)
            return plain
    _require_reducible(tensor, op, factors)
    if is_rounded(tensor, op, factors):
        call = rounded(tensor, op, name, factors, communicator, scatters=False)
        return converted(call, partial(_copy_to, tensor)) if in_place else call
    if in_place:
        _note_change(tensor)
    reduce = allreduce_async_ if in_place else allreduce_async
    return reduce(
        tensor,
        op,
        name,
        prescale_factor=factors[0],
        postscale_factor=factors[1],
        compression=compression,
        process_set=process_set,
    )


def _note_change(tensor: Tensor) -> None:
    """Backward raises an error then, if it needs what the tensor was."""
    if not tensor.is_inference():
        increment_version(tensor)


def _copy_to(tensor: Tensor, values: Tensor) -> Tensor:
    tensor.detach().copy_(values)
    return tensor


def reducescatters(
    tensors: Sequence[Tensor],
    op: Op,
    names: Sequence[str | None],
    factors: Factors,
    process_set: ProcessSet,
) -> list[Handle[Tensor]]:
    """Of a group, in the same way."""
    for tensor in tensors if len(tensors) > 1 else ():
        _require_scatterable(tensor, op, factors)
    return [
        reducescatter(tensor, op, name, factors, process_set)
        for tensor, name in zip(tensors, names, strict=True)
    ]


def _require_scatterable(tensor: Tensor, op: Op, factors: Factors) -> None:
    if op == Adasum:
        raise RuntimeError(
            "reducescatter cannot do op=hvd.Adasum, whose coefficients are those of whole tensors; use "
            "hvd.allreduce and take your part of its result"
        )
    _require_reducible(tensor, op, factors)
    if tensor.dim() == 0:
        raise ValueError("reducescatter needs a tensor of at least one dimension")


def reducescatter(
    tensor: Tensor, op: Op, name: str | None, factors: Factors, process_set: ProcessSet
) -> Handle[Tensor]:
    communicator = communicator_in(process_set)
    require_name(name)
    _require_scatterable(tensor, op, factors)
    if is_rounded(tensor, op, factors):
        return rounded(tensor, op, name, factors, communicator, scatters=True)
    return reducescatter_async(
        tensor,
        op,
        name,
        prescale_factor=factors[0],
        postscale_factor=factors[1],
        process_set=process_set,
    )


# While a rank has joined, the next two raise an error, as they do in Horovod.


def broadcast(
    tensor: Tensor, in_place: bool, root_rank: int, name: str | None, process_set: ProcessSet
) -> Handle[Tensor]:
    communicator = communicator_in(process_set)
    require_name(name)
    require_tensor(tensor)
    root = root_of(root_rank, process_set)
    if in_place:
        _note_change(tensor)
    else:
        fresh = torch.clone if communicator.rank == root else torch.empty_like
        tensor = fresh(tensor.detach(), memory_format=torch.contiguous_format)
    return submit(
        tensor,
        lambda engine, to, x, dtype: engine.broadcast(to, x, root, name, dtype, needs_all=True),
        lambda _, seen: written(tensor, seen),
        process_set,
        writable=True,
    )


def allgather(
    tensor: Tensor, name: str | None, process_set: ProcessSet
) -> Handle[tuple[Tensor, list[int]]]:
    """Its result is the rows of all ranks, and how many came from each."""
    communicator_in(process_set)
    require_name(name)
    require_tensor(tensor)
    return submit(
        tensor,
        lambda engine, to, x, dtype: engine.allgather(to, x, name, dtype, needs_all=True),
        lambda result, seen: (seen.wrap(result[0]), result[1]),
        process_set,
    )


def alltoall(
    tensor: Tensor, splits: Any, name: str | None, process_set: ProcessSet
) -> Handle[tuple[Tensor, Tensor]]:
    """Its result is the rows that came, and how many from each rank."""
    communicator = communicator_in(process_set)
    require_name(name)
    require_tensor(tensor)
    rows = rows_for_ranks(tensor, splits, communicator.size)
    sent = tensor.detach()[: sum(rows)]
    call = alltoall_async(sent, rows, name, process_set=process_set)
    return converted(call, lambda done: (done[0], torch.tensor(done[1], dtype=torch.int32)))
