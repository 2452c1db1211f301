"""Collectives that move data, of any type. Each submits a call, and returns what to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ronde import context, handles
from ronde.arrays import View, view
from ronde.process_set import ProcessSet

from .operands import bits, joined, put
from .work import Pending, Then

__all__ = [
    "allgather",
    "allgather_base",
    "alltoall",
    "alltoall_base",
    "broadcast",
    "gather",
    "scatter",
]


def broadcast(process_set: ProcessSet, tensor: Tensor, root: int) -> Pending:
    x = bits(tensor)
    handle = handles.broadcast_async_(x, process_set.ranks[root], process_set=process_set)
    return Then(handle, lambda _: put(x, tensor))


def allgather(process_set: ProcessSet, outputs: Sequence[Tensor], tensor: Tensor) -> Pending:
    _require_one_each("all_gather", "output", outputs, process_set)
    rows = _rows(tensor, outputs)
    handle = handles.allgather_async(rows, process_set=process_set)
    return Then(handle, lambda whole: _deal("all_gather", whole, outputs))


def allgather_base(process_set: ProcessSet, output: Tensor, tensor: Tensor) -> Pending:
    """Of tensors of one shape, into one."""
    if output.numel() != process_set.size() * tensor.numel() or output.dtype != tensor.dtype:
        raise ValueError(
            f"all_gather of {tensor.numel()} elements of {tensor.dtype} of each of {process_set.size()} "
            f"ranks does not fit an output of {output.numel()} of {output.dtype}"
        )
    handle = handles.allgather_async(bits(tensor).view(1, -1), process_set=process_set)
    return Then(handle, lambda whole: put(whole, output))


def gather(
    process_set: ProcessSet, outputs: Sequence[Tensor], tensor: Tensor, root: int
) -> Pending:
    """`outputs`: on the root."""
    if process_set.rank() == root:
        _require_one_each("gather", "output", outputs, process_set)
    seen = view(bits(tensor))
    call = context.world().engine.gather(
        process_set._member(), seen.operand, root, None, seen.dtype
    )

    def finish(gathered: tuple[Any, list[int]] | None) -> None:
        if gathered is None:
            seen.give_back()
        else:
            _deal("gather", seen.wrap(gathered[0]), outputs, gathered[1])

    return Then(handles.Handle(call), finish)


def scatter(process_set: ProcessSet, output: Tensor, parts: Sequence[Tensor], root: int) -> Pending:
    """`parts`: on the root."""
    engine, communicator = context.world().engine, process_set._member()
    seen: View | None = None
    if process_set.rank() == root:
        _require_one_each("scatter", "input", parts, process_set)
        seen = view(joined(parts).view(torch.uint8))
        sizes = [each.numel() * each.element_size() for each in parts]
        call = engine.scatter(communicator, seen.array, sizes, 1, [], root)
    else:
        call = engine.scatter(communicator, None, [], 0, [], root)

    def finish(part: tuple[int, Any, list[int]]) -> None:
        received = torch.from_numpy(part[1])
        if seen is not None:
            seen.give_back()
        _require_fits("scatter", received, output)
        put(received.to(output.device), output)

    return Then(handles.Handle(call), finish)


def alltoall(
    process_set: ProcessSet, outputs: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Pending:
    _require_one_each("all_to_all", "output", outputs, process_set)
    _require_one_each("all_to_all", "input", inputs, process_set)
    whole = joined(inputs)
    splits = [bits(each).numel() for each in inputs]
    handle = handles.alltoall_async(whole, splits, process_set=process_set)
    return Then(handle, lambda result: _deal("all_to_all", result[0], outputs, result[1]))


def alltoall_base(
    process_set: ProcessSet,
    output: Tensor,
    whole: Tensor,
    output_splits: Sequence[int],
    input_splits: Sequence[int],
) -> Pending:
    """Of rows of one tensor, into those of another; no splits stand for equal ones."""
    into = _split("output", output, output_splits, process_set)
    parts = _split("input", whole, input_splits, process_set)
    return alltoall(process_set, into, parts)


def _split(
    what: str, tensor: Tensor, splits: Sequence[int], process_set: ProcessSet
) -> Sequence[Tensor]:
    size, rows = process_set.size(), tensor.shape[0] if tensor.dim() else 1
    if not splits and rows % size:
        raise ValueError(f"all_to_all: the {rows} rows of the {what} do not divide by {size} ranks")
    counts = list(splits) or [rows // size] * size
    if len(counts) != size or min(counts) < 0 or sum(counts) != rows:
        raise ValueError(
            f"all_to_all: the {what} splits {counts} of {size} ranks do not add up to {rows} rows"
        )
    parts: Sequence[Tensor] = tensor.detach().split(counts)
    return parts


def _rows(tensor: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """One row where all ranks give as much, so that they compare how long it is before they send it."""
    flat = bits(tensor)
    return flat.view(1, -1) if len({each.numel() for each in outputs}) == 1 else flat


def _deal(
    what: str, whole: Tensor, outputs: Sequence[Tensor], lengths: Sequence[int] | None = None
) -> None:
    """Writes what came from each rank to its output."""
    flat = whole.reshape(-1)
    wanted = [each.numel() * each.element_size() // flat.element_size() for each in outputs]
    if sum(wanted) != flat.numel() or (lengths is not None and list(lengths) != wanted):
        raise ValueError(
            f"{what}: {list(lengths) if lengths is not None else flat.numel()} elements came, and the "
            f"outputs have {wanted}"
        )
    for part, output in zip(flat.split(wanted), outputs, strict=True):
        put(part, output)


def _require_one_each(
    call: str, what: str, tensors: Sequence[Tensor], process_set: ProcessSet
) -> None:
    if len(tensors) != process_set.size():
        raise ValueError(
            f"{call} needs an {what} for each of {process_set.size()} ranks, not {len(tensors)}"
        )


def _require_fits(call: str, received: Tensor, output: Tensor) -> None:
    wanted = output.numel() * output.element_size()
    if received.numel() != wanted:
        raise ValueError(f"{call}: {received.numel()} bytes came, and the output has {wanted}")
