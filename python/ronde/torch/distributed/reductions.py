"""Collectives that compute. Each submits a call, and returns what to wait for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from ronde import Average, Max, Min, Op, Product, Sum, handles
from ronde.process_set import ProcessSet

from .._checks import FLOATING
from .._rounded import is_rounded, rounded
from .operands import KNOWN, numbers, put
from .work import Pending, Then, Together

__all__ = ["allreduce", "reduce", "reduce_scatter", "reduce_scatter_parts"]


class _Reduction(NamedTuple):
    """How a reduction of torch is made of one of Ronde."""

    op: Op
    prescale: float = 1.0


# By the numbers of torch's operations, as these are found faster.
_OPS = {
    int(ReduceOp.SUM): Sum,
    int(ReduceOp.AVG): Average,
    int(ReduceOp.MIN): Min,
    int(ReduceOp.MAX): Max,
    int(ReduceOp.PRODUCT): Product,
    int(ReduceOp.PREMUL_SUM): Sum,
}
_BITWISE = {
    int(ReduceOp.BAND): torch.bitwise_and,
    int(ReduceOp.BOR): torch.bitwise_or,
    int(ReduceOp.BXOR): torch.bitwise_xor,
}
_PREMULTIPLIED = int(ReduceOp.PREMUL_SUM)
# Those that are one of Ronde without a factor.
_SIMPLE = {number: op for number, op in _OPS.items() if number != _PREMULTIPLIED}


def _number(op: Any) -> int:
    return int(getattr(op, "op", op))  # without the factor of PREMUL_SUM


def _name(number: int) -> str:
    name: str = ReduceOp.RedOpType(number).name
    return name


def _reduction(given: Any, dtype: torch.dtype) -> _Reduction:
    """What a `ReduceOp` stands for, of tensors of this type.

    Raises `RuntimeError` for what Ronde cannot reduce.
    """
    number = _number(given)
    op = _OPS.get(number)
    if dtype.is_complex and op not in (Sum, Average):
        raise RuntimeError(f"complex numbers are reduced by SUM or AVG, not by {_name(number)}")
    if not dtype.is_complex and dtype not in KNOWN:
        raise RuntimeError(f"the backend ronde can move tensors of {dtype}, but not reduce them")
    if op is None:
        raise RuntimeError(f"the backend ronde has no {_name(number)} here, only in all_reduce")
    if number == _PREMULTIPLIED:
        return _Reduction(op, _factor(given))
    return _Reduction(op)


def _factor(given: Any) -> float:
    factor = getattr(given, "factor", None)
    if factor is None:
        raise RuntimeError("this version of torch does not show the factor of PREMUL_SUM")
    return float(factor)


def allreduce(process_set: ProcessSet, tensor: Tensor, op: Any) -> Pending:
    simple = _SIMPLE.get(_number(op))
    if simple is not None and tensor.dtype in FLOATING:
        plain = handles._plain_allreduce(tensor, True, simple, None, (1.0, 1.0), process_set)
        if plain is not None:
            return plain
    if tensor.is_sparse:
        return _sparse(process_set, tensor, op)
    combine = _BITWISE.get(_number(op))
    if combine is not None:
        return _bitwise(process_set, tensor, combine)
    how = _reduction(op, tensor.dtype)
    x = numbers(tensor)
    if _is_rounded(x, how):
        return Then(_rounded(process_set, x, how), lambda mean: put(mean, tensor))
    handle = handles.allreduce_async_(
        x, how.op, prescale_factor=how.prescale, process_set=process_set
    )
    return Then(handle, lambda _: put(x, tensor))


def _is_rounded(x: Tensor, how: _Reduction) -> bool:
    return is_rounded(x, how.op, (how.prescale, 1.0))


def _rounded(
    process_set: ProcessSet, x: Tensor, how: _Reduction, scatters: bool = False
) -> Pending:
    """Averages, and factors, of integers."""
    return rounded(x, how.op, None, (how.prescale, 1.0), process_set._member(), scatters)


def _bitwise(
    process_set: ProcessSet, tensor: Tensor, combine: Callable[[Tensor, Tensor], Tensor]
) -> Pending:
    """Every rank combines the tensors of all."""
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        raise RuntimeError(f"BAND, BOR and BXOR are for integers and bool, not for {tensor.dtype}")
    handle = handles.allgather_async(numbers(tensor).unsqueeze(0), process_set=process_set)
    return Then(handle, lambda parts: put(functools.reduce(combine, parts), tensor))


def _sparse(process_set: ProcessSet, tensor: Tensor, op: Any) -> Pending:
    """Every rank adds up the elements that there are anywhere, of tensors of one shape."""
    if _number(op) != int(ReduceOp.SUM):
        raise RuntimeError(f"sparse tensors are reduced by SUM only, not by {_name(_number(op))}")
    own = tensor.detach().coalesce()
    positions = handles.allgather_async(own.indices().t().contiguous(), process_set=process_set)
    values = handles.allgather_async(own.values().contiguous(), process_set=process_set)

    def finish(_: Any) -> None:
        everywhere = torch.sparse_coo_tensor(
            positions.result.t(), values.result, tensor.shape, check_invariants=True
        )
        with torch.no_grad():
            tensor.copy_(everywhere.coalesce())

    return Then(Together([positions, values]), finish)


def reduce(process_set: ProcessSet, tensor: Tensor, root: int, op: Any) -> Pending:
    how = _reduction(op, tensor.dtype)
    x = numbers(tensor)
    if _is_rounded(x, how):
        handle = _rounded(process_set, x, how)
    else:
        handle = handles.reduce_async(
            x,
            process_set.ranks[root],
            how.op,
            prescale_factor=how.prescale,
            process_set=process_set,
        )

    def finish(reduced: Tensor | None) -> None:
        if process_set.rank() == root and reduced is not None:
            put(reduced, tensor)

    return Then(handle, finish)


def reduce_scatter(process_set: ProcessSet, output: Tensor, whole: Tensor, op: Any) -> Pending:
    """`whole` divides into equal parts, one for each rank."""
    size = process_set.size()
    how = _reduction(op, output.dtype)
    if whole.numel() != size * output.numel() or whole.dtype != output.dtype:
        raise ValueError(
            f"reduce_scatter gives each of {size} ranks an equal part of {whole.numel()} elements of "
            f"{whole.dtype}, which an output of {output.numel()} of {output.dtype} does not fit"
        )
    x = numbers(whole)
    rows = x.view(size, x.numel() // size)
    if _is_rounded(x, how):
        handle = _rounded(process_set, rows, how, scatters=True)
    else:
        handle = handles.reducescatter_async(
            rows, how.op, prescale_factor=how.prescale, process_set=process_set
        )
    return Then(handle, lambda part: put(part, output))


def reduce_scatter_parts(
    process_set: ProcessSet, output: Tensor, parts: Sequence[Tensor], op: Any
) -> Pending:
    """The same of a part for each rank."""
    rank, size = process_set.rank(), process_set.size()
    if len(parts) != size or parts[rank].shape != output.shape:
        raise ValueError(
            f"reduce_scatter needs a tensor for each of {size} ranks, this rank's of the shape "
            f"{tuple(output.shape)} of the output, not {[tuple(each.shape) for each in parts]}"
        )
    flat = torch.cat([each.reshape(-1) for each in parts])
    sizes = [each.numel() for each in parts]
    if len(set(sizes)) == 1:
        return reduce_scatter(process_set, output, flat, op)
    # Of the reduced whole each rank takes its own.
    return Then(allreduce(process_set, flat, op), lambda _: put(flat.split(sizes)[rank], output))
