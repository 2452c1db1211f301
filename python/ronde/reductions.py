"""Collectives that compute: allreduce, reduce, reducescatter, and their grouped forms."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import _core
from ._calls import Keep, buckets, communicator_of, name_of, root_of
from .arrays import ArrayLike, View, is_floating, view
from .process_set import ProcessSet, global_process_set

__all__ = [
    "Average",
    "Max",
    "Min",
    "Op",
    "Product",
    "Sum",
    "allreduce",
    "allreduce_",
    "grouped_allreduce",
    "grouped_allreduce_",
    "grouped_reducescatter",
    "reduce",
    "reducescatter",
]


class Op(enum.Enum):
    """How the contributions of the ranks become one."""

    Sum = "sum"
    Average = "average"
    Min = "min"
    Max = "max"
    Product = "product"

    def __repr__(self) -> str:
        return f"ronde.{self.name}"


Sum = Op.Sum
"""The sum. Integers wrap; for bool it is "or"."""
Average = Op.Average
"""The sum over the number of ranks, for floating types only."""
Min = Op.Min
"""The minimum. NaN wins over every number, and -0 is less than +0; for bool it is "and"."""
Max = Op.Max
"""The maximum, with NaN and zeros as for Min; for bool it is "or"."""
Product = Op.Product
"""The product. Integers wrap; for bool it is "and"."""

_CORE_OPS = {
    Op.Sum: _core.ReduceOp.sum,
    Op.Average: _core.ReduceOp.sum,
    Op.Min: _core.ReduceOp.min,
    Op.Max: _core.ReduceOp.max,
    Op.Product: _core.ReduceOp.product,
}


class _Reduction:
    """The checked arguments of a reduction."""

    def __init__(
        self,
        views: Sequence[View],
        op: Op,
        prescale_factor: float,
        postscale_factor: float,
        process_set: ProcessSet,
    ) -> None:
        if not isinstance(op, Op):
            raise TypeError(f"op must be one of {list(Op)}, not {op!r}")
        self.communicator = communicator_of(process_set)
        self.op = op
        self.prescale = _factor("prescale_factor", prescale_factor)
        self.postscale = _factor("postscale_factor", postscale_factor)
        scaled = self.prescale != 1.0 or self.postscale != 1.0
        for each in views:
            if is_floating(each.dtype):
                continue
            if op is Average:
                raise TypeError(
                    f"the average of {each.dtype.name} would have to be rounded; "
                    "use op=ronde.Sum, or convert to a floating type"
                )
            if scaled:
                raise TypeError(
                    f"prescale_factor and postscale_factor need a floating type, not {each.dtype.name}"
                )

    def of(self, dtype: _core.DType) -> _core.Reduction:
        divisor = float(self.communicator.size) if self.op is Average else 1.0
        return _core.Reduction(dtype, _CORE_OPS[self.op], self.prescale, divisor, self.postscale)

    def call(self, kind: str, name: str | None, **fields: Any) -> _core.Call:
        return _core.Call(
            kind,
            name_of(name),
            op=self.op.value,
            prescale=self.prescale,
            postscale=self.postscale,
            **fields,
        )

    def allreduce(self, call: _core.Call, views: Sequence[View], outputs: Sequence[Any]) -> None:
        inputs = [each.array for each in views]
        with Keep(self.communicator, inputs, outputs):
            self.communicator.allreduce(call, inputs, outputs, self.of(views[0].dtype))


def _factor(what: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float") from None
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number, not {value!r}") from None


def allreduce(
    x: ArrayLike,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The reduction of `x` over all ranks, as a new array of x's kind, shape and dtype.

    `x`: an array of the same shape and dtype on all ranks. `name`: shown in errors, and compared.
    `prescale_factor`, `postscale_factor`: multiply the input before and the result after the reduction
    (floating types only).

    All ranks get the same bits. float16 and bfloat16 are added in float32 and rounded once for each
    addition; docs/algorithms.md gives the error bound of every algorithm.
    """
    seen = view(x)
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    output = np.empty(seen.shape, seen.array.dtype)
    call = reduction.call("allreduce", name, dtype=seen.dtype, shape=seen.shape)
    reduction.allreduce(call, [seen], [output])
    return seen.wrap(output)


def allreduce_(
    x: ArrayLike,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """As `allreduce`, in place: `x` receives the result, and is returned."""
    seen = view(x, writable=True)
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    call = reduction.call("allreduce", name, dtype=seen.dtype, shape=seen.shape)
    reduction.allreduce(call, [seen], [seen.array])
    seen.write_back()
    return x


def grouped_allreduce(
    xs: Iterable[ArrayLike],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """`allreduce` of each of several arrays, fused into buckets of at most `RONDE_FUSION_BYTES`.

    The arrays may differ in dtype; those of one dtype share buckets.
    """
    seen = [view(x) for x in xs]
    outputs = [np.empty(each.shape, each.array.dtype) for each in seen]
    reduction = _Reduction(seen, op, prescale_factor, postscale_factor, process_set)
    _reduce_group(reduction, name, seen, outputs)
    return [each.wrap(output) for each, output in zip(seen, outputs, strict=True)]


def grouped_allreduce_(
    xs: Iterable[ArrayLike],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """As `grouped_allreduce`, in place: the arrays receive the results, and are returned."""
    xs = list(xs)
    seen = [view(x, writable=True) for x in xs]
    reduction = _Reduction(seen, op, prescale_factor, postscale_factor, process_set)
    _reduce_group(reduction, name, seen, [each.array for each in seen])
    for each in seen:
        each.write_back()
    return xs


def _reduce_group(
    reduction: _Reduction, name: str | None, views: Sequence[View], outputs: Sequence[Any]
) -> None:
    shapes = ", ".join(f"{each.dtype.name}{list(each.shape)}" for each in views)
    # The first phase 0 covers the whole group; an empty group is a call too.
    detail = f"{len(views)} arrays: {shapes}"
    reduction.communicator.barrier(reduction.call("grouped_allreduce", name, detail=detail))
    for bucket in buckets(views):
        members = [views[i] for i in bucket]
        call = reduction.call("bucket of grouped_allreduce", name, dtype=members[0].dtype)
        reduction.allreduce(call, members, [outputs[i] for i in bucket])


def reduce(
    x: ArrayLike,
    root_rank: int = 0,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """As `allreduce`, with the result at `root_rank` alone; other ranks get None."""
    seen = view(x)
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    root = root_of(root_rank, process_set)
    call = reduction.call(
        "reduce", name, dtype=seen.dtype, shape=seen.shape, root=process_set.ranks[root]
    )
    output = np.empty(seen.shape, seen.array.dtype) if reduction.communicator.rank == root else None
    with Keep(reduction.communicator, seen, output):
        reduction.communicator.reduce(call, seen.array, output, reduction.of(seen.dtype), root)
    return None if output is None else seen.wrap(output)


def reducescatter(
    x: ArrayLike,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The reduction of `x` over all ranks, cut along the first dimension: each rank gets its part.

    The parts are as even as possible; lower ranks get a row more where the rows do not divide. An array
    of no dimensions is a TypeError.
    """
    seen = view(x)
    if not seen.shape:
        raise TypeError("reducescatter needs an array of at least one dimension")
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    size, rank = reduction.communicator.size, reduction.communicator.rank
    row = int(np.prod(seen.shape[1:], dtype=np.int64))
    rows = [seen.shape[0] // size + (r < seen.shape[0] % size) for r in range(size)]
    output = np.empty((rows[rank], *seen.shape[1:]), seen.array.dtype)
    call = reduction.call("reducescatter", name, dtype=seen.dtype, shape=seen.shape)
    counts = [n * row for n in rows]
    with Keep(reduction.communicator, seen, output):
        reduction.communicator.reduce_scatter(
            call, seen.array, output, counts, reduction.of(seen.dtype)
        )
    return seen.wrap(output)


def grouped_reducescatter(
    xs: Iterable[ArrayLike],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """`reducescatter` of each of several arrays."""
    return [
        reducescatter(
            x,
            op,
            f"{name or 'group'}[{i}]",
            prescale_factor=prescale_factor,
            postscale_factor=postscale_factor,
            process_set=process_set,
        )
        for i, x in enumerate(xs)
    ]
