"""Tensors of torch in Ronde's own collectives: what comes out is a tensor, whichever way it goes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = ["float32", "float64", "float16", "bfloat16", "bool", *INTEGERS]

# The same values in another way of holding them. The core takes the first as they are.
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda x: x,
    "parameter": lambda x: torch.nn.Parameter(x, requires_grad=x.is_floating_point()),
    "transposed": lambda x: x.t().contiguous().t(),
    "strided": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "part": lambda x: torch.cat([x, x])[len(x) :],
}


def values(rank: int, dtype: str) -> Any:
    return (torch.arange(6).reshape(3, 2) % 3 + rank).to(getattr(torch, dtype))


def each_kind() -> list[tuple[str, str]]:
    return [(dtype, layout) for dtype in DTYPES for layout in LAYOUTS]


def mine(dtype: str, layout: str) -> Any:
    return LAYOUTS[layout](values(ronde.rank(), dtype))


def require(result: Any, expected: Any) -> None:
    assert type(result) is torch.Tensor and not result.requires_grad
    assert result.dtype is expected.dtype and result.shape == expected.shape
    assert torch.equal(result, expected), (result, expected)


def total(dtype: str) -> Any:
    """The sum over all ranks; "or" for bool."""
    parts = [values(rank, dtype) for rank in range(ronde.size())]
    summed = torch.stack([part.to(torch.float64) for part in parts]).sum(0)
    return summed.to(parts[0].dtype)


@on_ranks(1, 3)
def test_sums_of_every_dtype_and_layout() -> None:
    for dtype, layout in each_kind():
        x = mine(dtype, layout)
        require(ronde.allreduce(x, ronde.Sum), total(dtype))
        require(ronde.allreduce_async(x, ronde.Sum).wait(), total(dtype))
        assert torch.equal(x, values(ronde.rank(), dtype))


@on_ranks(1, 3)
def test_sums_in_place() -> None:
    for call in (
        ronde.allreduce_,
        lambda x, op: ronde.allreduce_async_(x, op).wait(),
        lambda x, op: ronde.grouped_allreduce_([x], op)[0],
        lambda x, op: ronde.grouped_allreduce_async_([x], op).wait()[0],
    ):
        for dtype, layout in each_kind():
            x = mine(dtype, layout)
            assert call(x, ronde.Sum) is x
            assert torch.equal(x, total(dtype))


@on_ranks(1, 3)
def test_groups() -> None:
    for layout in LAYOUTS:
        xs = [mine(dtype, layout) for dtype in DTYPES]
        for done in (
            ronde.grouped_allreduce(xs, ronde.Sum),
            ronde.grouped_allreduce_async(xs, ronde.Sum).wait(),
            ronde.grouped_allreduce(xs, ronde.Sum, "named"),
            ronde.grouped_allreduce(xs, ronde.Sum, "named"),  # by the plan of the last
        ):
            for dtype, result in zip(DTYPES, done, strict=True):
                require(result, total(dtype))


@on_ranks(1, 3)
def test_movements() -> None:
    rank, size = ronde.rank(), ronde.size()
    for dtype, layout in each_kind():
        x, parts = mine(dtype, layout), [values(each, dtype) for each in range(size)]
        last = size - 1
        for gathered in (ronde.allgather(x), ronde.allgather_async(x).wait()):
            require(gathered, torch.cat(parts))
        for sent in (ronde.broadcast(x, last), ronde.broadcast_async(x, last).wait()):
            require(sent, parts[last])
        columns = mine(dtype, layout).repeat(size, 1)
        swapped = torch.cat(parts)
        for moved in (ronde.alltoall(columns), ronde.alltoall_async(columns).wait()):
            require(moved, swapped)
        rows, counts = ronde.alltoall_async(columns, [3] * size).wait()
        require(rows, swapped)
        assert counts == [3] * size
        in_place = mine(dtype, layout)
        assert ronde.broadcast_async_(in_place, last).wait() is in_place
        assert torch.equal(in_place, parts[last])
        at_root = ronde.gather(x, last)
        assert (at_root is None) == (rank != last)
        if at_root is not None:
            require(at_root, torch.cat(parts))
        part = ronde.scatter(torch.cat(parts) if rank == 0 else None)
        require(part, parts[rank])


@on_ranks(1, 3)
def test_parts_of_sums() -> None:
    rank, size = ronde.rank(), ronde.size()
    for dtype, layout in each_kind():
        x = mine(dtype, layout).repeat(size, 1)
        for part in (
            ronde.reducescatter(x, ronde.Sum),
            ronde.reducescatter_async(x, ronde.Sum).wait(),
        ):
            require(part, total(dtype))
        result = ronde.reduce_async(x, 0, ronde.Sum).wait()
        assert (result is None) == (rank != 0)
        if result is not None:
            require(result, total(dtype).repeat(size, 1))


@on_ranks(1, 3)
def test_shapes_without_elements_or_dimensions() -> None:
    size = ronde.size()
    require(ronde.allreduce(torch.tensor(2.0), ronde.Sum), torch.tensor(2.0 * size))
    require(ronde.allgather(torch.tensor(2.0)), torch.full((size,), 2.0))
    require(ronde.allreduce(torch.empty(0, 3), ronde.Sum), torch.empty(0, 3))
    require(ronde.allgather(torch.empty(0, 3)), torch.empty(0, 3))


@on_ranks(1, 3)
def test_a_negative_view_is_not_taken_for_its_memory() -> None:
    x = torch.tensor([1 + 2j]).conj().imag  # -2, of whose memory the sign is another
    assert x.is_neg()
    require(ronde.allreduce(x, ronde.Sum), torch.tensor([-2.0 * ronde.size()]))


@on_ranks(1, 3)
def test_what_is_no_dense_tensor_of_the_host_is_refused() -> None:
    freed = torch.ones(2)
    freed.untyped_storage().resize_(0)
    for x, error in (
        (freed, TypeError),
        (torch.ones(2).to_sparse(), TypeError),
        (torch.ones(2, device="meta"), ronde.UnavailableError),
        (torch.ones(2, dtype=torch.complex64), TypeError),
        (torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), TypeError),
    ):
        for call in (ronde.allreduce, ronde.allreduce_async, ronde.allgather):
            with pytest.raises(error):
                call(x)


@on_ranks(1, 3)
def test_parameters_of_a_model() -> None:
    parameter = torch.nn.Parameter(torch.full((2,), float(ronde.rank())))
    ronde.broadcast_(parameter, ronde.size() - 1)
    assert parameter.requires_grad and bool((parameter == ronde.size() - 1).all())
    model = torch.nn.Linear(3, 2)
    ronde.broadcast_parameters(model.state_dict())
    ronde.broadcast_parameters(model.named_parameters())
    assert len(set(ronde.allgather_object(model.weight.sum().item()))) == 1
