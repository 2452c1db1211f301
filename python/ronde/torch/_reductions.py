"""allreduce and reducescatter, with the arguments of Horovod."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from ..compression._method import Method
from ..handles import Handle
from ..process_set import ProcessSet
from ..reductions import Adasum, Average, Max, Min, Op, Product, Sum
from . import _autograd, _submit
from ._autograd import Reducing
from ._checks import listed, op_of, require_tensor
from ._handles import enter, grouped
from .compression import Compression
from .process_sets import global_process_set

__all__ = [
    "Adasum",
    "Average",
    "Max",
    "Min",
    "Product",
    "Sum",
    "allreduce",
    "allreduce_",
    "allreduce_async",
    "allreduce_async_",
    "grouped_allreduce",
    "grouped_allreduce_",
    "grouped_allreduce_async",
    "grouped_allreduce_async_",
    "grouped_reducescatter",
    "grouped_reducescatter_async",
    "reducescatter",
    "reducescatter_async",
]


def allreduce(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    compression: Any = Compression.none,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Reduce a tensor over all ranks, and return the result as a new tensor. All ranks get the same bits.

    Its gradient is reduced in the same way, without Ronde's compression. `requires_grad` must be the same on
    all ranks.

    Args:
        tensor: of the same shape and dtype on all ranks: bool, integers, float16, bfloat16, float32 or
            float64; on the CPU or a CUDA GPU.
        average: deprecated; True for `op=Average`, False for `op=Sum`.
        name: by which the ranks know the call, with its kind and process set; by default they count those
            without a name.
        compression: `Compression.fp16` say, or what `ronde.allreduce` takes.
        op: `Average` by default, `Sum`, `Min`, `Max`, `Product`, or `Adasum` (floating types only). The
            average of integers is rounded toward zero; that of bools is true where all are. Integers of
            64 bits are added in 64 bits: where their sum does not fit the result is wrong.
        prescale_factor: multiplies the tensor before the reduction. Integers are multiplied in float64, and
            rounded toward zero.
        postscale_factor: multiplies the result, in the same way.
        process_set: the ranks that take part.

    Raises:
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
        HorovodInternalError: the ranks describe the call differently, or one has failed.
    """
    how = Reducing(op_of(op, average), (prescale_factor, postscale_factor), process_set)
    return _reduced(_autograd.allreduce, [tensor], [name], compression, how)[0]


def allreduce_(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """Reduce a tensor over all ranks in place, and return it. The arguments are those of `allreduce`.

    Nothing is differentiated.
    """
    factors = prescale_factor, postscale_factor
    return _submit.allreduce(tensor, True, op_of(op, average), name, factors, process_set).wait()


def allreduce_async(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit an allreduce. The arguments are those of `allreduce`.

    Returns:
        A handle for `synchronize` and `poll`. Until it has completed the tensor must not be changed.
    """
    factors = prescale_factor, postscale_factor
    call = _submit.allreduce(tensor, False, op_of(op, average), name, factors, process_set)
    return enter(call)


def allreduce_async_(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit an allreduce in place, as `allreduce_async` does.

    Some tensors are written only when `synchronize` returns, or `poll` returns True: those that are not
    contiguous, and averages of integers.
    """
    factors = prescale_factor, postscale_factor
    return enter(_submit.allreduce(tensor, True, op_of(op, average), name, factors, process_set))


def grouped_allreduce(
    tensors: Iterable[Tensor],
    average: bool | None = None,
    name: str | None = None,
    compression: Any = Compression.none,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """Reduce several tensors over all ranks, and return the results as a list.

    Args:
        tensors: they may differ in shape and dtype; as many on all ranks, in the same order.
        name: becomes `name[0]`, `name[1]` and so on. The other arguments are those of `allreduce`.
    """
    found = listed(tensors)
    names = _submit.names(name, len(found))
    how = Reducing(op_of(op, average), (prescale_factor, postscale_factor), process_set)
    return _reduced(_autograd.allreduce, found, names, compression, how)


def _reduced(
    reduce: Callable[[Sequence[Tensor], _autograd.Names, Reducing], Sequence[Tensor]],
    tensors: list[Tensor],
    names: list[str | None],
    compression: Any,
    how: Reducing,
) -> list[Tensor]:
    """All of them. Compression of Ronde is a part of the reduction; other comes before it and after it."""
    if compression is None or compression is Compression.none:
        return list(reduce(tensors, names, how))
    if isinstance(compression, (str, Method)):
        return list(reduce(tensors, names, how._replace(compression=compression)))
    if not hasattr(compression, "compress"):
        raise ValueError(
            f"compression must be one of hvd.Compression or of Ronde, not {compression!r}"
        )
    for tensor in tensors:
        require_tensor(tensor)
    pairs = [compression.compress(tensor) for tensor in tensors]
    reduced = reduce([tensor for tensor, _ in pairs], names, how)
    return [compression.decompress(x, ctx) for x, (_, ctx) in zip(reduced, pairs, strict=True)]


def grouped_allreduce_(
    tensors: Iterable[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """Reduce several tensors over all ranks in place, and return them as a list.

    The arguments are those of `grouped_allreduce`. Nothing is differentiated.
    """
    how = Reducing(op_of(op, average), (prescale_factor, postscale_factor), process_set)
    return list(_grouped(tensors, True, name, how).wait())


def grouped_allreduce_async(
    tensors: Iterable[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit an allreduce of several tensors. The arguments are those of `grouped_allreduce`.

    Returns:
        A handle, for which `synchronize` returns the tuple of the results.
    """
    how = Reducing(op_of(op, average), (prescale_factor, postscale_factor), process_set)
    return enter(_grouped(tensors, False, name, how))


def grouped_allreduce_async_(
    tensors: Iterable[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: Op | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Submit an allreduce of several tensors in place, as `grouped_allreduce_async` does."""
    how = Reducing(op_of(op, average), (prescale_factor, postscale_factor), process_set)
    return enter(_grouped(tensors, True, name, how))


def _grouped(
    tensors: Iterable[Tensor], in_place: bool, name: str | None, how: Reducing
) -> Handle[tuple[Tensor, ...]]:
    found = listed(tensors)
    names = _submit.names(name, len(found))
    return grouped(_submit.allreduces(found, in_place, how.op, names, *how[1:]))


def reducescatter(
    tensor: Tensor,
    name: str | None = None,
    compression: Any = Compression.none,
    op: Op = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Tensor:
    """Reduce a tensor over all ranks, cut the result along its first dimension, and return the part of
    this rank. Lower ranks get a row more where the rows do not divide.

    Its gradient is gathered, times the factors, and times the number of ranks for `Sum`. `requires_grad` must
    be the same on all ranks. The part of a rank that is in `join` is lost.

    Args:
        tensor: of at least one dimension, of the same shape and dtype on all ranks.
        compression: `Compression.fp16` say.
        op: `Average`, `Sum`, `Min`, `Max` or `Product`. The other arguments are those of `allreduce`.

    Raises:
        RuntimeError: `op` is `Adasum`.
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
        HorovodInternalError: the ranks describe the call differently, or one has failed.
    """
    how = Reducing(op, (prescale_factor, postscale_factor), process_set)
    return _reduced(_autograd.reducescatter, [tensor], [name], compression, how)[0]


def reducescatter_async(
    tensor: Tensor,
    name: str | None = None,
    op: Op = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> int:
    """Submit a reducescatter. The arguments are those of `reducescatter`.

    Returns:
        A handle for `synchronize` and `poll`. Until it has completed the tensor must not be changed.
    """
    factors = prescale_factor, postscale_factor
    return enter(_submit.reducescatter(tensor, op, name, factors, process_set))


def grouped_reducescatter(
    tensors: Iterable[Tensor],
    name: str | None = None,
    compression: Any = Compression.none,
    op: Op = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> list[Tensor]:
    """Apply `reducescatter` to each of several tensors, and return the parts as a list.

    Args:
        tensors: they may differ in shape and dtype; as many on all ranks, in the same order.
        name: becomes `name[0]`, `name[1]` and so on. The other arguments are those of `reducescatter`.
    """
    found = listed(tensors)
    names = _submit.names(name, len(found))
    how = Reducing(op, (prescale_factor, postscale_factor), process_set)
    return _reduced(_autograd.reducescatter, found, names, compression, how)


def grouped_reducescatter_async(
    tensors: Iterable[Tensor],
    name: str | None = None,
    op: Op = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> int:
    """Submit a reducescatter of several tensors. The arguments are those of `grouped_reducescatter`.

    Returns:
        A handle, for which `synchronize` returns the tuple of the parts.
    """
    found = listed(tensors)
    names = _submit.names(name, len(found))
    factors = prescale_factor, postscale_factor
    return enter(grouped(_submit.reducescatters(found, op, names, factors, process_set)))
