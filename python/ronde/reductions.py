"""Collectives that compute: allreduce, reduce, reducescatter, and their grouped forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from . import _core
from ._calls import communicator_of, name_of, root_of
from ._groups import Labelled, Way, key_of, reduce_group
from .arrays import View, is_floating, listed, view, views
from .compression import method_of_call
from .process_set import ProcessSet, global_process_set

__all__ = [
    "Adasum",
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

T = TypeVar("T")  # of an array or a number: results are of the kind that came in

Op = _core.Op
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
Adasum = Op.Adasum
"""The adaptive sum of Maleki et al. (MLSys 2021), for floating types only, of allreduces without
compression: gradients that point the same way are averaged, orthogonal ones are added, each array by
coefficients of its own. docs/algorithms.md has the formula."""

# Here and in movements.py, what the core can take as it is goes straight there: for a short array a view
# would take longer than the collective.


def allreduce(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> T:
    """Reduce `x` over all ranks, and return the result as a new array.

    All ranks get the same bits. float16 and bfloat16 are added in float32; docs/algorithms.md says
    how often they are rounded, and gives the error bound of every algorithm.

    Args:
        x: an array of the same shape and dtype on all ranks, or a number.
        op: `Average` (floats only), `Sum`, `Min`, `Max`, `Product` or `Adasum` (floats only, without
            compression).
        name: shown in errors, and compared between the ranks.
        prescale_factor: multiplies the input before the reduction; floats only.
        postscale_factor: multiplies the result after it; floats only.
        compression: one of `ronde.compression`, or its name, for the sum or average of floats. Only
            what crosses machines is compressed, in float32.
        process_set: the ranks that take part; None for all.

    Returns:
        An array of the kind, shape and dtype of `x`.
    """
    communicator = communicator_of(process_set)
    if compression is None:
        done = communicator.allreduce(x, None, op, name, prescale_factor, postscale_factor)
        if done is not None:
            return done
    factors = prescale_factor, postscale_factor
    result: T
    if compression is not None:
        way = Way("allreduce", op, name, *factors, key_of(compression))
        [result] = reduce_group([x], way, process_set, alone(name, compression), what_x)
        return result
    seen = view(x)
    reduced = communicator.allreduce(seen.operand, None, op, name, *factors, dtype=seen.dtype)
    result = seen.wrap(reduced)
    return result


def allreduce_(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> T:
    """Reduce `x` over all ranks in place. `x` receives the result, and is returned.

    The arguments are those of `allreduce`. Large arrays of `ronde.empty` are reduced without a copy
    on any rank of the machine.

    Raises:
        ValueError: the array is read only.
    """
    communicator = communicator_of(process_set)
    if compression is None:
        done = communicator.allreduce(x, x, op, name, prescale_factor, postscale_factor)
        if done is not None:
            return done
    factors = prescale_factor, postscale_factor
    if compression is not None:
        way = Way("allreduce", op, name, *factors, key_of(compression))
        reduce_group([x], way, process_set, alone(name, compression), what_x, in_place=True)
        return x
    seen = view(x, writable=True)
    communicator.allreduce(seen.operand, seen.operand, op, name, *factors, dtype=seen.dtype)
    seen.write_back()
    return x


def grouped_allreduce(
    xs: Iterable[T],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> list[T]:
    """Reduce several arrays over all ranks, fused into buckets of at most `RONDE_FUSION_BYTES`.

    The arrays may differ in shape and dtype. Those of one dtype and compression share buckets.

    Args:
        xs: arrays, each as for `allreduce`; as many on all ranks, in the same order.
        compression: one for all arrays, or a list with one or None for each.

    Returns:
        A list of new arrays. The other arguments are those of `allreduce`.
    """
    way = Way("grouped_allreduce", op, name, prescale_factor, postscale_factor, key_of(compression))
    return reduce_group(listed(xs), way, process_set, labelled(name, compression), what_xs)


def grouped_allreduce_(
    xs: Iterable[T],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    compression: Any = None,
    process_set: ProcessSet | None = global_process_set,
) -> list[T]:
    """Reduce several arrays over all ranks in place, and return them as a list.

    The arguments are those of `grouped_allreduce`.

    Raises:
        ValueError: an array is read only, or two share memory.
    """
    arrays = listed(xs)
    way = Way("grouped_allreduce", op, name, prescale_factor, postscale_factor, key_of(compression))
    reduce_group(arrays, way, process_set, labelled(name, compression), what_xs, in_place=True)
    return arrays


# What of a group follows from the arguments of its call.


def what_x(_: int) -> str:
    return "x"


def what_xs(i: int) -> str:
    return f"xs[{i}]"


def alone(name: str | None, compression: Any) -> Callable[[list[View]], Labelled]:
    return lambda _: [(method_of_call(compression), name or "")]


def labelled(name: str | None, compression: Any) -> Callable[[list[View]], Labelled]:
    def label(seen: list[View]) -> Labelled:
        labels = [f"{name}[{i}]" if name else "" for i in range(len(seen))]
        if isinstance(compression, (list, tuple)):
            methods = [method_of_call(each) for each in compression]
            if len(methods) != len(seen):
                raise ValueError(
                    f"compression has {len(methods)} entries for {len(seen)} arrays; "
                    "give one or None for each, or a single one for all"
                )
        else:
            method = method_of_call(compression)
            methods = [method if is_floating(each.dtype) else None for each in seen]
        return list(zip(methods, labels, strict=True))

    return label


def reduce(
    x: T,
    root_rank: int = 0,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> T | None:
    """Reduce `x` over all ranks, with the result on `root_rank` alone.

    Args:
        root_rank: the rank that gets the result, a rank of the job.

    Returns:
        On the root a new array as of `allreduce`, whose arguments are the others. None on all other
        ranks.
    """
    communicator = communicator_of(process_set)
    seen = view(x)
    root = root_of(root_rank, process_set)
    factors = prescale_factor, postscale_factor
    output = communicator.reduce(seen.operand, root, op, name, *factors, dtype=seen.dtype)
    if output is None:
        seen.give_back()
        return None
    result: T = seen.wrap(output)
    return result


def reducescatter(
    x: T,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> T:
    """Reduce `x` over all ranks, cut the result along the first dimension, and return this rank's
    part.

    The parts are as even as possible: lower ranks get a row more where the rows do not divide.

    Args:
        x: an array of at least one dimension, of the same shape and dtype on all ranks.

    Returns:
        A new array of the kind and dtype of `x`. The other arguments are those of `allreduce`.

    Raises:
        TypeError: `x` has no dimensions.
    """
    communicator = communicator_of(process_set)
    factors = prescale_factor, postscale_factor
    done = communicator.reducescatter(x, op, name, *factors)
    if done is not None:
        return done
    seen = view(x)
    part = communicator.reducescatter(seen.operand, op, name, *factors, dtype=seen.dtype)
    result: T = seen.wrap(part)
    return result


def grouped_reducescatter(
    xs: Iterable[T],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
) -> list[T]:
    """Apply `reducescatter` to each of several arrays, and return the parts as a list."""
    communicator = communicator_of(process_set)
    factors = prescale_factor, postscale_factor
    common = name_of(name) or "group"
    seen = views(listed(xs))  # all of them, before anything is sent
    return [
        each.wrap(
            communicator.reducescatter(each.operand, op, f"{common}[{i}]", *factors, each.dtype)
        )
        for i, each in enumerate(seen)
    ]
