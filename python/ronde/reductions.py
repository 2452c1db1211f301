"""Collectives that compute: allreduce, reduce, reducescatter, and their grouped forms."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from . import _core, context
from ._calls import communicator_of, factor_of, name_of, root_of
from .arrays import View, all_finite, is_floating, listed, view, views
from .compression import method_of_call
from .compression._floats import fits, reduce_in_floats
from .compression._group import Group, Method
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

T = TypeVar("T")  # of an array or a number: results are of the kind that came in

_log = logging.getLogger("ronde")

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
        op: `Average` (floats only), `Sum`, `Min`, `Max` or `Product`.
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
    seen = view(x)
    if compression is None:
        reduced = communicator.allreduce(seen.array, None, op, name, *factors, dtype=seen.dtype)
    else:
        reduced = _core.result_like(seen.array)
        how = [(method_of_call(compression), name or "")]
        _reduce_into("allreduce", [reduced], [seen], op, name, factors, how, process_set)
    result: T = seen.wrap(reduced)
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
    seen = view(x, writable=True)
    if compression is None:
        communicator.allreduce(seen.array, seen.array, op, name, *factors, dtype=seen.dtype)
    else:
        how = [(method_of_call(compression), name or "")]
        _reduce_into("allreduce", [seen.array], [seen], op, name, factors, how, process_set)
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
    seen = views(listed(xs))
    factors = prescale_factor, postscale_factor
    return reduce_group(seen, op, name, factors, _labelled(seen, name, compression), process_set)


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
    seen = views(arrays, writable=True)
    factors = prescale_factor, postscale_factor
    how = _labelled(seen, name, compression)
    outputs = [each.array for each in seen]
    _reduce_into("grouped_allreduce", outputs, seen, op, name, factors, how, process_set)
    for each in seen:
        each.write_back()
    return arrays


# Of each array of a group, how it is compressed, and its name, under which more may be known of it.
Labelled = Sequence[tuple[Method | None, str]]


def _labelled(views: Sequence[View], name: str | None, compression: Any) -> Labelled:
    labels = [f"{name}[{i}]" if name else "" for i in range(len(views))]
    if isinstance(compression, (list, tuple)):
        methods = [method_of_call(each) for each in compression]
        if len(methods) != len(views):
            raise ValueError(
                f"compression has {len(methods)} entries for {len(views)} arrays; "
                "give one or None for each, or a single one for all"
            )
    else:
        method = method_of_call(compression)
        methods = [method if is_floating(each.dtype) else None for each in views]
    return list(zip(methods, labels, strict=True))


def reduce_group(
    views: Sequence[View],
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    how: Labelled,
    process_set: ProcessSet | None,
) -> list[Any]:
    """`grouped_allreduce` of views."""
    outputs = [_core.result_like(each.array) for each in views]
    _reduce_into("grouped_allreduce", outputs, views, op, name, factors, how, process_set)
    return [each.wrap(output) for each, output in zip(views, outputs, strict=True)]


def _reduce_into(
    kind: str,
    outputs: Sequence[Any],
    views: Sequence[View],
    op: Op,
    name: str | None,
    factors: tuple[float, float],
    how: Labelled,
    process_set: ProcessSet | None,
) -> None:
    communicator = communicator_of(process_set)
    before, after = map(factor_of, ("prescale_factor", "postscale_factor"), factors)
    ways: dict[Method | None, list[int]] = {}
    for i, (method, _) in enumerate(how):
        ways.setdefault(method, []).append(i)
    group = Group(
        communicator,
        [each.array for each in views],
        outputs,
        [each.dtype for each in views],
        [label for _, label in how],
        op,
        name,
        factors,
        context.world().settings.fusion_bytes,
    )
    # Where gradients are not finite the caller may skip the step: what was left out before must then be
    # left as it is, on all ranks. Nor must float64 become infinite because compression computes in float32.
    feeds_back = any(method.feeds_back for method in ways if method)
    growth = 2 * communicator.size * max(1.0, abs(before)) * max(1.0, abs(after))
    fitting = all(fits(views[i], growth) for method in ways if method for i in ways[method])
    exactly = communicator.agree_on_group(
        kind,
        group.inputs,
        outputs,
        group.dtypes,
        [(repr(method), members) for method, members in ways.items() if method],
        op,
        name,
        *factors,
        not fitting or (feeds_back and not all(all_finite(each) for each in views)),
    )
    if _log.isEnabledFor(logging.DEBUG):
        _explain(kind, group, how, exactly)
    for method, members in ways.items():
        part = group.part(members)
        if method is None or exactly:
            part.allreduce_exactly()
        else:
            reduce_in_floats(method, part)


def _explain(kind: str, group: Group, how: Labelled, exactly: bool) -> None:
    """Says once of each array what is done with it."""
    explained = context.world().explained
    for i, (x, dtype, (method, label)) in enumerate(
        zip(group.inputs, group.dtypes, how, strict=True)
    ):
        text = "exactly"
        if method is not None:
            text = f"by {method!r}" + ("" if dtype.name == "float32" else ", in float32")
            if exactly:
                text = (
                    "exactly, as some values are not finite or beyond float32 or ranks have joined, "
                    "instead of " + text
                )
        line = f"{kind} {label or f'[{i}]'} ({dtype.name}, shape {x.shape}): {text}"
        if line not in explained:
            explained.add(line)
            _log.debug("%s", line)


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
    output = communicator.reduce(seen.array, root, op, name, *factors, dtype=seen.dtype)
    return None if output is None else seen.wrap(output)


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
    part = communicator.reducescatter(seen.array, op, name, *factors, dtype=seen.dtype)
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
            communicator.reducescatter(each.array, op, f"{common}[{i}]", *factors, each.dtype)
        )
        for i, each in enumerate(seen)
    ]
