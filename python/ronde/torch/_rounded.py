"""Averages, and factors, of integers and bools: results are rounded toward zero.

The native core adds integers, and refuses what would have to be rounded. So that is done here, before the sum
and after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _core, context
from ..arrays import view
from ..handles import Handle
from ..reductions import Adasum, Average, Op, Sum
from ._checks import FLOATING

__all__ = ["Factors", "is_rounded", "require_rounded", "rounded"]

Factors = tuple[float, float]  # before the reduction, and after it

# In which they are added, so that the sum fits where the average does; but for int64, whose sums wrap. Bools
# are counted: in the end 0 is false.
_WIDE = {
    **dict.fromkeys((torch.bool, torch.int8, torch.int16, torch.uint8, torch.uint16), torch.int32),
    **dict.fromkeys((torch.int32, torch.int64, torch.uint32), torch.int64),
}


def is_rounded(tensor: Tensor, op: Op, factors: Factors) -> bool:
    return tensor.dtype not in FLOATING and (op in (Average, Adasum) or factors != (1.0, 1.0))


def require_rounded(tensor: Tensor, op: Op) -> None:
    if tensor.dtype not in _WIDE:
        raise ValueError(f"torch does not compute with {tensor.dtype}; convert the tensor first")
    if op == Adasum:
        raise ValueError(f"Adasum needs a floating type, not {tensor.dtype}")


def rounded(
    tensor: Tensor,
    op: Op,
    name: str | None,
    factors: Factors,
    communicator: _core.Communicator,
    scatters: bool,
) -> Handle[Tensor]:
    """An allreduce, or a reducescatter, of what `require_rounded` lets through."""
    before, after = factors
    size = communicator.size if op == Average else 1
    counts = tensor.detach().to(_WIDE[tensor.dtype])
    if before != 1.0:
        counts = (counts.double() * before).to(counts.dtype)

    def finish(reduced: Tensor) -> Tensor:
        if after != 1.0:
            reduced = (reduced.double() * after / size).to(reduced.dtype)
        elif size != 1:
            reduced = torch.div(reduced, size, rounding_mode="trunc")
        return reduced.to(tensor.dtype)

    # The ranks must agree on all that the core does not see.
    detail = f"rounded {op} of {tensor.dtype}, prescale={before}, postscale={after}"
    engine, core_op = context.world().engine, Sum if op == Average else op
    seen = view(counts, "tensor")
    if scatters:
        call = engine.reducescatter(
            communicator, seen.operand, core_op, name, dtype=seen.dtype, detail=detail
        )
    else:
        call = engine.allreduce(
            communicator, seen.operand, None, core_op, name, dtype=seen.dtype, detail=detail
        )
    return Handle(call, lambda result: finish(seen.wrap(result)))
