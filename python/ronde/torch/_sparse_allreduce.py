"""Sums of sparse tensors: all ranks gather the elements of all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import MismatchError
from ..process_set import ProcessSet
from ..reductions import Average, Op, Sum
from . import _submit
from ._checks import FLOATING, communicator_in
from ._handles import grouped
from .process_sets import global_process_set

__all__ = ["sparse_allreduce_async"]


def sparse_allreduce_async(
    tensor: Tensor, name: str, op: Op, process_set: ProcessSet = global_process_set
) -> Callable[[], Tensor]:
    """Submit an allreduce of a sparse tensor.

    Args:
        tensor: in layout `torch.sparse_coo`, of the same shape and dtype on all ranks. Which elements it
            has may differ.
        name: by which the ranks know the call.
        op: `Average` or `Sum`.
        process_set: the ranks that take part.

    Returns:
        A function that waits for the result, a sparse tensor; `synchronize` calls it. Positions that
        several ranks have occur several times, until it is coalesced.

    Raises:
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
    """
    size = communicator_in(process_set).size
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.sparse_coo:
        raise ValueError("sparse_allreduce_async needs a tensor of layout torch.sparse_coo")
    if op not in (Average, Sum):
        raise ValueError(f"sparse_allreduce_async can do hvd.Average and hvd.Sum, not {op}")
    if op == Average and tensor.dtype not in FLOATING:
        raise ValueError(f"sparse_allreduce_async can average floating types, not {tensor.dtype}")
    mine = tensor.detach().coalesce()
    sent = mine.indices().t(), mine.values(), torch.tensor([[*tensor.shape, int(op)]])
    named = zip(sent, _submit.names(name, len(sent)), strict=True)
    call = grouped([_submit.allgather(part, label, process_set) for part, label in named])

    def result() -> Tensor:
        indices, values, all_shapes = (rows for rows, _ in call.wait())
        if (all_shapes != all_shapes[0]).any():
            different = [
                (f"{Op(op)} of shape {tuple(shape)}") for *shape, op in all_shapes.tolist()
            ]
            raise MismatchError(f"sparse_allreduce_async {name!r}: the ranks call {different}")
        if op == Average:
            values = values / size
        # Positions have been checked where they come from.
        return torch.sparse_coo_tensor(indices.t(), values, tensor.shape, check_invariants=False)

    return result
