"""Sparse gradients are gathered: each rank gets the indices and values of all, and adds them up."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .. import handles
from ..reductions import Average
from ._buckets import Gradient
from ._carriers import Reduction

__all__ = ["start_sparse"]


def start_sparse(
    gradient: Gradient, dimensions: int, name: str, reduction: Reduction
) -> Callable[[], torch.Tensor]:
    """Submits the gradient of this rank, nothing if there is none. `dimensions`: those that are sparse.

    Returns what waits for the sum or the average, a coalesced sparse tensor.
    """
    param, grad = gradient.param, gradient.param.grad
    shape = param.shape
    if gradient.passes == 0 or grad is None:
        indices = torch.empty((0, dimensions), dtype=torch.int64, device=param.device)
        values = param.new_empty((0, *shape[dimensions:]))
    else:
        if not grad.is_sparse or grad.sparse_dim() != dimensions:
            grad = grad.to_dense().to_sparse(dimensions)  # it is otherwise on another rank
        grad = grad.coalesce()
        indices, values = grad.indices().t().contiguous(), grad.values()
    values = values * reduction.prescale_factor
    to = reduction.process_set
    all_indices = handles.allgather_async(indices, f"{name}, indices", process_set=to)
    all_values = handles.allgather_async(values, f"{name}, values", process_set=to)
    share = to.size() if reduction.op == Average else 1
    factor = reduction.postscale_factor / share

    def finish() -> torch.Tensor:
        joined = torch.sparse_coo_tensor(
            all_indices.wait().t(), all_values.wait() * factor, shape, check_invariants=False
        )
        return joined.coalesce()

    return finish
