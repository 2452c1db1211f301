"""What is wrong by itself, on this rank: it raises `ValueError` before anything is sent."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from .. import _core, context
from .._calls import communicator_of
from ..errors import RondeError
from ..process_set import ProcessSet
from ..reductions import Average, Op, Sum

__all__ = [
    "FLOATING",
    "communicator_in",
    "listed",
    "op_of",
    "require_initialized",
    "require_name",
    "require_op",
    "require_tensor",
    "rows_for_ranks",
]

FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_DTYPES = FLOATING | {torch.bool, torch.int8, torch.int16, torch.int32, torch.int64}
_DTYPES |= {torch.uint8, torch.uint16, torch.uint32, torch.uint64}


def require_initialized() -> context.World:
    """The world of `hvd.init()`."""
    try:
        return context.world()
    except RondeError as error:
        if context._world is not None:  # of the parent, before a fork
            raise ValueError(str(error)) from None
    raise ValueError("Ronde has not been initialized; use hvd.init()")


def communicator_in(process_set: ProcessSet) -> _core.Communicator:
    """That of a set, which this rank must be a member of."""
    communicator: _core.Communicator | None = getattr(process_set, "_communicator", None)
    if communicator is not None:
        return communicator
    require_initialized()
    try:
        return communicator_of(process_set)
    except (RondeError, TypeError) as error:
        raise ValueError(str(error)) from None


def require_tensor(tensor: Any, what: str = "tensor") -> None:
    """Raises for what the native core cannot take."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{what}: a torch.Tensor is needed, not {type(tensor).__name__}")
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"{what}: tensors of {tensor.dtype} cannot be sent; convert it first")
    if tensor.is_cpu or tensor.is_cuda:
        if tensor.layout is not torch.strided:
            raise ValueError(
                f"{what}: a dense tensor is needed, not one of layout {tensor.layout}; "
                "hvd.sparse_allreduce_async reduces sparse ones"
            )
        return
    raise ValueError(f"{what}: this tensor is on {tensor.device}; copy it to the CPU first")


def require_name(name: Any) -> None:
    if name is not None and not isinstance(name, str):
        raise ValueError(f"name must be a string, not {name!r}")


def require_op(op: Any) -> None:
    if not isinstance(op, Op):
        raise ValueError(
            "op must be hvd.Average, hvd.Sum, hvd.Min, hvd.Max, hvd.Product or hvd.Adasum, "
            f"not {op!r}"
        )


def listed(tensors: Any) -> list[Any]:
    """The tensors of a group, all of which are as they must be."""
    if isinstance(tensors, torch.Tensor) or not isinstance(tensors, Iterable):
        raise ValueError(f"tensors must be a list of tensors, not {type(tensors).__name__}")
    found = list(tensors)
    for i, tensor in enumerate(found):
        require_tensor(tensor, f"tensors[{i}]")
    return found


def op_of(op: Op | None, average: bool | None) -> Op:
    """What `op` and its predecessor `average` ask for."""
    if average is None:
        return Average if op is None else op
    if op is not None:
        raise ValueError("op and average cannot both be given; average is deprecated, use op alone")
    warnings.warn(
        "average is deprecated: use op=hvd.Average or op=hvd.Sum", DeprecationWarning, stacklevel=3
    )
    return Average if average else Sum


def rows_for_ranks(tensor: Any, splits: Any, size: int) -> list[int]:
    """How many rows of `tensor` go to each rank of an alltoall."""
    if tensor.dim() == 0:
        raise ValueError("alltoall needs a tensor of at least one dimension")
    rows = tensor.shape[0]
    if splits is None:
        if rows % size:
            raise ValueError(f"{rows} rows do not divide by {size} ranks; pass splits")
        return [rows // size] * size
    if isinstance(splits, torch.Tensor):
        if splits.dtype is not torch.int32:
            raise ValueError(f"splits must be a tensor of torch.int32, not of {splits.dtype}")
        splits = splits.tolist()
    try:
        counts = [operator.index(count) for count in splits]
    except TypeError:
        raise ValueError(
            f"splits must be a list or a tensor of whole numbers, one for each rank, not {splits!r}"
        ) from None
    if len(counts) != size:
        raise ValueError(f"splits has {len(counts)} entries for {size} ranks")
    if min(counts) < 0:
        raise ValueError(f"splits {counts} must not be negative")
    if sum(counts) > rows:
        raise ValueError(f"splits {counts} ask for more than the {rows} rows of the tensor")
    return counts
