"""Collectives of `hvd`: results, numbers, names, errors."""

from __future__ import annotations

import copy
import operator
from functools import reduce
from typing import Any

import pytest
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde.torch as hvd  # noqa: E402
from ronde.handles import Handle  # noqa: E402
from ronde.torch import _handles  # noqa: E402

FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES = [*FLOATING, *INTEGERS, torch.bool]


def values(rank: int, dtype: Any, shape: Any = (3, 2)) -> Any:
    """Small whole numbers, which all types add without rounding; they differ between the ranks."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    numbers = (torch.arange(count) * (rank + 1) + rank) % 5
    return numbers.reshape(shape).to(dtype)


def of_all(dtype: Any, shape: Any = (3, 2)) -> list[Any]:
    return [values(rank, dtype, shape) for rank in range(hvd.size())]


def same(a: Any, b: Any) -> None:
    assert a.dtype == b.dtype and a.shape == b.shape, (a, b)
    assert torch.equal(a, b), (a, b)


def raises(kind: type[BaseException], call: Any, *texts: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    for text in texts:
        assert text in str(caught.value), str(caught.value)


# --- reductions


@on_ranks(2, 3)
def test_allreduce_of_every_type() -> None:
    for dtype in DTYPES:
        each = of_all(dtype)
        x = each[hvd.rank()]
        before = x.clone()
        wide = torch.stack([part.double() for part in each])
        total, size = wide.sum(0), hvd.size()
        same(hvd.allreduce(x, op=hvd.Sum), total.to(dtype))
        same(hvd.allreduce(x, op=hvd.Min), wide.amin(0).to(dtype))
        same(hvd.allreduce(x, op=hvd.Max), wide.amax(0).to(dtype))
        same(hvd.allreduce(x, op=hvd.Product), wide.prod(0).to(dtype))
        if dtype.is_floating_point:
            torch.testing.assert_close(hvd.allreduce(x), (total / size).to(dtype))
        else:
            same(hvd.allreduce(x), (total / size).trunc().to(dtype))
        same(x, before)


@on_ranks(2, 3)
def test_averages_of_integers_are_rounded_toward_zero() -> None:
    size = hvd.size()
    for dtype in [torch.int8, torch.int16, torch.int32, torch.int64]:
        x = torch.tensor([-7, 7, -1, 1, 0], dtype=dtype) * (hvd.rank() == 0)
        expected = torch.tensor([int(n / size) for n in (-7, 7, -1, 1, 0)], dtype=dtype)
        same(hvd.allreduce(x), expected)
        same(hvd.allreduce_(x.clone()), expected)
    large = torch.tensor([2**62 - 1, -(2**62) + 1]) * (hvd.rank() == 0)  # beyond 53 bits
    assert hvd.allreduce(large).tolist() == [(2**62 - 1) // size, -((2**62 - 1) // size)]
    for dtype in [torch.uint8, torch.int8, torch.int16, torch.int32]:  # whose sums do not fit
        most = torch.tensor([torch.iinfo(dtype).max, torch.iinfo(dtype).min], dtype=dtype)
        same(hvd.allreduce(most), most)
        same(hvd.reducescatter(most.repeat(size))[:2], most)
    raises(ValueError, lambda: hvd.allreduce(torch.ones(1, dtype=torch.uint64)), "uint64")
    own = torch.tensor([True, hvd.rank() == 0, False])
    same(hvd.allreduce(own), torch.tensor([True, False, False]))
    same(hvd.allreduce(own, op=hvd.Sum), torch.tensor([True, True, False]))


@on_ranks(2)
def test_factors() -> None:
    for dtype in FLOATING:
        x = values(hvd.rank(), dtype)
        total = sum(of_all(dtype)).double()
        y = hvd.allreduce(x, op=hvd.Sum, prescale_factor=0.5, postscale_factor=4.0)
        same(y, (2 * total).to(dtype))
        same(hvd.allreduce(x, prescale_factor=0.5, postscale_factor=4.0), total.to(dtype))
        y = hvd.allreduce(x, op=hvd.Sum, prescale_factor=0.3, postscale_factor=0.7)
        torch.testing.assert_close(y, (0.21 * total).to(dtype))
    for dtype in INTEGERS:  # each is multiplied in float64 and rounded toward zero
        x = torch.tensor([3, 5, 7], dtype=dtype)
        y = hvd.allreduce(x, op=hvd.Sum, prescale_factor=0.3, postscale_factor=1.7)
        same(y, torch.tensor([int(1.7 * 2 * n) for n in (0, 1, 2)], dtype=dtype))
        y = hvd.allreduce(x, postscale_factor=0.4)
        same(y, torch.tensor([int(0.4 * n) for n in (3, 5, 7)], dtype=dtype))
    negative = torch.tensor([-3])
    assert hvd.allreduce(negative, op=hvd.Sum, prescale_factor=0.5).item() == -2
    assert hvd.allreduce(negative, op=hvd.Max, postscale_factor=0.5).item() == -1
    bools = torch.tensor([True, False])
    assert hvd.allreduce(bools, op=hvd.Sum, prescale_factor=0.5).tolist() == [False, False]
    assert hvd.allreduce(bools, op=hvd.Sum, postscale_factor=0.5).tolist() == [True, False]


@on_ranks(2)
def test_adasum() -> None:
    x = torch.zeros(4)
    x[hvd.rank()] = 3.0  # orthogonal ones are added, equal ones averaged
    same(hvd.allreduce(x, op=hvd.Adasum), torch.tensor([3.0, 3.0, 0.0, 0.0]))
    same(hvd.allreduce(torch.ones(4), op=hvd.Adasum), torch.ones(4))
    raises(ValueError, lambda: hvd.allreduce(torch.ones(2, dtype=torch.int32), op=hvd.Adasum))


@on_ranks(2)
def test_the_order_of_arguments_and_average() -> None:
    x = torch.ones(2)
    with pytest.warns(DeprecationWarning, match="average"):
        same(hvd.allreduce(x, False), 2 * x)
    with pytest.warns(DeprecationWarning, match="average"):
        same(hvd.allreduce(x, average=True), x)
    same(hvd.allreduce(x, None, "a", hvd.Compression.fp16, hvd.Sum, 0.5, 4.0), 4 * x)
    same(hvd.allreduce_(x.clone(), None, "a", hvd.Sum, 0.5, 4.0, hvd.global_process_set), 4 * x)
    same(hvd.synchronize(hvd.allreduce_async(x, None, "a", hvd.Sum, 0.5, 4.0)), 4 * x)
    same(hvd.grouped_allreduce([x], None, "a", hvd.Compression.none, hvd.Sum, 0.5, 4.0)[0], 4 * x)
    same(
        hvd.reducescatter(x, "a", hvd.Compression.none, hvd.Sum, hvd.global_process_set, 3.0),
        6 * x[:1],
    )
    raises(ValueError, lambda: hvd.allreduce(x, average=True, op=hvd.Sum), "op")


@on_ranks(2)
def test_compression() -> None:
    x = torch.tensor([1.0 + 2**-12, 3.0])  # which float16 rounds
    y = hvd.allreduce(x, op=hvd.Sum, compression=hvd.Compression.fp16)
    same(y, torch.tensor([2.0, 6.0]))
    integers = torch.tensor([1, 2])
    same(hvd.allreduce(integers, op=hvd.Sum, compression=hvd.Compression.fp16), 2 * integers)
    a, b = hvd.grouped_allreduce([x, x[:1]], op=hvd.Sum, compression=hvd.Compression.fp16)
    same(a, torch.tensor([2.0, 6.0]))
    same(b, torch.tensor([2.0]))
    y = hvd.allreduce(x, name="grad", compression="bf16")  # Ronde's: inside a machine all is exact
    same(y, x)
    raises(ValueError, lambda: hvd.reducescatter(x, compression="bf16"), "Compression")


@on_ranks(2)
def test_in_place_the_same_tensor_comes_back() -> None:
    for x in [
        torch.ones(3),
        torch.ones(4, 3).t(),  # not contiguous
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.ones(2, dtype=torch.bfloat16),
    ]:
        strides = x.stride()
        assert hvd.allreduce_(x, op=hvd.Sum) is x
        assert (x == 2).all() and x.stride() == strides
        assert hvd.synchronize(hvd.allreduce_async_(x, op=hvd.Sum)) is x
        assert (x == 4).all()
        with torch.no_grad():
            x.fill_(hvd.rank())
        assert hvd.broadcast_(x, 1) is x
        assert (x == 1).all()
    xs = [torch.ones(2), torch.ones(3, dtype=torch.int32)]
    reduced = hvd.grouped_allreduce_(xs, op=hvd.Sum)
    assert isinstance(reduced, list) and all(map(operator.is_, reduced, xs))
    reduced = hvd.synchronize(hvd.grouped_allreduce_async_(xs))
    assert isinstance(reduced, tuple) and all(map(operator.is_, reduced, xs))
    assert xs[0].tolist() == [2.0, 2.0] and xs[1].tolist() == [2, 2, 2]


@on_ranks(2)
def test_what_is_changed_in_place_is_not_used_by_backward() -> None:
    x = torch.ones(2, requires_grad=True)
    for change in [hvd.allreduce_, lambda y: hvd.broadcast_(y, 0)]:
        y = x * 2
        z = y * y  # backward needs y
        change(y.detach())
        raises(RuntimeError, z.sum().backward, "modified by an inplace operation")


@on_ranks(2)
def test_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.ones(2)
    for call in [lambda: hvd.allreduce(x), lambda: hvd.allreduce_(x), lambda: hvd.broadcast_(x, 0)]:
        same(call(), torch.ones(2))
        with torch.inference_mode():
            same(call(), torch.ones(2))


@on_ranks(2)
def test_views_scalars_and_empty_tensors() -> None:
    size = hvd.size()
    same(hvd.allreduce(torch.tensor(2.0), op=hvd.Sum), torch.tensor(2.0 * size))
    same(hvd.allreduce(torch.ones(0, 3), op=hvd.Sum), torch.ones(0, 3))
    same(hvd.allreduce(torch.ones(1).expand(4), op=hvd.Sum), torch.full((4,), float(size)))
    whole = torch.zeros(4, 4)
    hvd.allreduce_(whole[:, 1].fill_(1.0), op=hvd.Sum)
    assert whole[:, 1].tolist() == [size] * 4 and whole.sum() == 4 * size
    same(hvd.allreduce(torch.ones(2, dtype=torch.complex64).real), torch.ones(2))
    negative = torch.full((2,), 1j).conj().imag  # a view with the other sign
    same(hvd.allreduce(negative, op=hvd.Sum), torch.full((2,), -1.0 * size))
    raises(ValueError, lambda: hvd.allreduce_(negative), "read only")
    same(hvd.allgather(torch.tensor(1.5)), torch.full((size,), 1.5))


@on_ranks(2, 3)
def test_reducescatter() -> None:
    size, rank = hvd.size(), hvd.rank()
    rows = size + 1  # the first rank gets one more
    mine = slice(0, 2) if rank == 0 else slice(rank + 1, rank + 2)
    for dtype in DTYPES:
        each = of_all(dtype, (rows, 2))
        total = torch.stack([part.double() for part in each]).sum(0)
        same(hvd.reducescatter(each[rank], op=hvd.Sum), total.to(dtype)[mine])
        mean = (total / size) if dtype.is_floating_point else (total / size).trunc()
        torch.testing.assert_close(hvd.reducescatter(each[rank]), mean.to(dtype)[mine])
    x = values(rank, torch.float32, (rows,))
    total = reduce(operator.add, of_all(torch.float32, (rows,)))
    handle = hvd.reducescatter_async(x, "a", hvd.Sum, hvd.global_process_set, 2.0, 3.0)
    same(hvd.synchronize(handle), 6 * total[mine])
    scaled = hvd.reducescatter(torch.tensor([3] * size), op=hvd.Sum, postscale_factor=0.5)
    assert scaled.tolist() == [int(1.5 * size)]
    parts = hvd.grouped_reducescatter([x, x.int()], op=hvd.Sum)
    assert isinstance(parts, list)
    same(parts[0], total[mine])
    same(parts[1], total[mine].int())
    parts = hvd.synchronize(hvd.grouped_reducescatter_async([x, x.double()], op=hvd.Max))
    assert isinstance(parts, tuple) and parts[1].dtype == torch.float64
    raises(RuntimeError, lambda: hvd.reducescatter(x, op=hvd.Adasum), "Adasum")
    raises(ValueError, lambda: hvd.reducescatter(torch.tensor(1.0)), "dimension")


@on_ranks(2)
def test_groups() -> None:
    xs = [torch.ones(2), torch.ones(3, 2, dtype=torch.int64), torch.ones(1, dtype=torch.bfloat16)]
    doubled = [2 * x for x in xs]
    reduced = hvd.grouped_allreduce(xs, op=hvd.Sum, name="group")
    assert isinstance(reduced, list)
    list(map(same, reduced, doubled))
    reduced = hvd.synchronize(hvd.grouped_allreduce_async(iter(xs), op=hvd.Sum))
    assert isinstance(reduced, tuple)
    list(map(same, reduced, doubled))
    gathered = hvd.grouped_allgather(xs)
    assert isinstance(gathered, list) and [len(x) for x in gathered] == [4, 6, 2]
    gathered = hvd.synchronize(hvd.grouped_allgather_async(xs, "g"))
    assert isinstance(gathered, tuple) and [len(x) for x in gathered] == [4, 6, 2]
    assert hvd.grouped_allreduce([]) == [] and hvd.grouped_allgather([]) == []
    raises(ValueError, lambda: hvd.grouped_allreduce(torch.ones(2)), "list")
    raises(ValueError, lambda: hvd.grouped_allreduce([torch.ones(2), 3]), "tensors[1]")


# --- movements


@on_ranks(2, 3)
def test_broadcast_of_every_type() -> None:
    root = hvd.size() - 1
    for dtype in DTYPES:
        x = values(hvd.rank(), dtype)
        before = x.clone()
        same(hvd.broadcast(x, root), values(root, dtype))
        same(hvd.synchronize(hvd.broadcast_async(x, root, "b")), values(root, dtype))
        same(x, before)
        assert hvd.synchronize(hvd.broadcast_async_(x, root)) is x
        same(x, values(root, dtype))
    same(hvd.broadcast(torch.tensor(hvd.rank()), root), torch.tensor(root))
    same(hvd.broadcast(torch.ones(3, 2).t() * hvd.rank(), root), torch.ones(2, 3) * root)


@on_ranks(2, 3)
def test_allgather_of_every_type() -> None:
    for dtype in DTYPES:
        each = [values(rank, dtype, (rank, 2)) for rank in range(hvd.size())]  # none of rank 0
        same(hvd.allgather(each[hvd.rank()]), torch.cat(each))
        same(hvd.synchronize(hvd.allgather_async(each[hvd.rank()], "g")), torch.cat(each))


@on_ranks(2, 3)
def test_alltoall() -> None:
    size, rank = hvd.size(), hvd.rank()
    for dtype in DTYPES:
        x = values(rank, dtype, (2 * size, 2))
        parts = [values(r, dtype, (2 * size, 2))[2 * rank : 2 * rank + 2] for r in range(size)]
        same(hvd.alltoall(x), torch.cat(parts))
    # Rank r sends r + 1 rows to each, and keeps one.
    x = torch.full((size * (rank + 1) + 1, 2), float(rank))
    expected = torch.cat([torch.full((r + 1, 2), float(r)) for r in range(size)])
    counts = torch.arange(1, size + 1, dtype=torch.int32)
    for splits in (torch.full((size,), rank + 1, dtype=torch.int32), [rank + 1] * size):
        joined, received = hvd.alltoall(x, splits)
        same(joined, expected)
        same(received, counts)
    joined, received = hvd.synchronize(hvd.alltoall_async(x, splits, "a"))
    same(joined, expected)
    same(received, counts)
    joined, received = hvd.synchronize(hvd.alltoall_async(torch.ones(size)))  # always a pair
    same(joined, torch.ones(size))
    same(received, torch.ones(size, dtype=torch.int32))
    none = hvd.alltoall(torch.ones(2), torch.zeros(size, dtype=torch.int32))[0]
    assert none.shape == (0,)


@on_ranks(2)
def test_wrong_splits() -> None:
    x = torch.ones(4, 2)
    for splits, text in [
        (torch.tensor([2, 2]), "int32"),
        (torch.tensor([2.0, 2.0]), "int32"),
        ([2, 2, 0], "3 entries"),
        ([1.5, 2.5], "whole numbers"),
        (3, "whole numbers"),
        ([3, 2], "4 rows"),
        ([-1, 5], "negative"),
        ([-1, 3], "negative"),
    ]:
        raises(ValueError, lambda splits=splits: hvd.alltoall(x, splits), text)
    raises(ValueError, lambda: hvd.alltoall(torch.ones(3)), "splits")
    raises(ValueError, lambda: hvd.alltoall(torch.tensor(1.0)), "dimension")


@on_ranks(2)
def test_sparse() -> None:
    rank = hvd.rank()
    indices = torch.tensor([[0, rank + 1, 0], [1, 0, 1]])  # one of them twice
    x = torch.sparse_coo_tensor(indices, torch.tensor([1.0, 2.0, 3.0]), (3, 2))
    total = torch.tensor([[0.0, 8.0], [2.0, 0.0], [2.0, 0.0]])
    handle = hvd.sparse_allreduce_async(x, name="s", op=hvd.Sum)
    result = hvd.synchronize(handle)
    assert result.layout is torch.sparse_coo
    same(result.to_dense(), total)
    same(hvd.sparse_allreduce_async(x, name="s", op=hvd.Average)().to_dense(), total / 2)
    rows = torch.sparse_coo_tensor(torch.tensor([[rank]]), torch.ones(1, 2), (2, 2))
    same(
        hvd.synchronize(hvd.sparse_allreduce_async(rows, "s", hvd.Sum)).to_dense(), torch.ones(2, 2)
    )
    raises(
        ValueError, lambda: hvd.sparse_allreduce_async(torch.ones(2), "s", hvd.Sum), "sparse_coo"
    )
    raises(ValueError, lambda: hvd.sparse_allreduce_async(x, "s", hvd.Max), "Max")
    raises(ValueError, lambda: hvd.allreduce(x), "sparse_allreduce_async")


# --- names and handles


@on_ranks(2, 3)
def test_names_in_different_orders() -> None:
    size, rank = hvd.size(), hvd.rank()
    names = [f"n{i}" for i in range(6)]
    order = names[rank:] + names[:rank]
    handles = {}
    for name in order:
        number = float(name[1:])
        handles[name] = (
            hvd.allreduce_async(torch.full((2,), number), name=name, op=hvd.Sum),
            hvd.allgather_async(torch.full((1,), number), name=name),  # its own kind
            hvd.broadcast_async(torch.full((1,), number + rank), 0, name=name),
        )
    for name in reversed(order):
        number = float(name[1:])
        total, rows, root = map(hvd.synchronize, handles[name])
        assert total.tolist() == [size * number] * 2
        assert rows.tolist() == [number] * size and root.tolist() == [number]


@on_ranks(2)
def test_handles() -> None:
    handle = hvd.allreduce_async(torch.ones(2), name="a")
    assert isinstance(handle, int)
    while not hvd.poll(handle):
        pass
    same(hvd.synchronize(handle), torch.ones(2))
    assert hvd.synchronize(handle) is None
    assert hvd.synchronize(10**9) is None
    raises(ValueError, lambda: hvd.poll(handle))


def unwritten() -> list[Any]:
    """Two that are reduced in place in a copy of them, and one that is not; their sums are 2."""
    integers = torch.full((2,), 4) * hvd.rank()  # of which the average is taken
    return [torch.ones(4, 2).t(), torch.ones(2), integers]


def submitted(xs: list[Any]) -> list[int]:
    ops = [hvd.Sum if x.is_floating_point() else hvd.Average for x in xs]
    return [
        hvd.allreduce_async_(x, name=f"in place {i}", op=op)
        for i, (x, op) in enumerate(zip(xs, ops, strict=True))
    ]


@on_ranks(2)
def test_what_is_in_place_when_poll_returns_true() -> None:
    xs = unwritten()
    for handle, x in zip(submitted(xs), xs, strict=True):
        while not hvd.poll(handle):
            pass
        assert (x == 2).all()
        assert hvd.synchronize(handle) is x


@on_ranks(2)
def test_handles_that_are_dropped() -> None:
    """Their calls complete all the same, and write what is in place while others are submitted."""
    hvd.allreduce_async(torch.ones(2), name="dropped")
    xs = unwritten()
    submitted(xs)
    left = torch.ones(1)
    while left.item():  # on any rank
        unready = sum(int((x != 2).any()) for x in xs)
        left = hvd.synchronize(hvd.allreduce_async(torch.full((1,), unready), op=hvd.Sum))


@on_ranks(1)
def test_a_wait_that_is_interrupted_can_be_repeated() -> None:
    class Call:
        done = waited = False

        def wait(self, timeout: float | None = None) -> str:
            if not self.waited:
                self.waited = True
                raise KeyboardInterrupt
            self.done = True
            return "result"

    handle = _handles.enter(Handle(Call()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        hvd.synchronize(handle)
    assert hvd.synchronize(handle) == "result"
    assert hvd.synchronize(handle) is None


@on_ranks(2)
def test_a_name_that_is_under_way() -> None:
    if hvd.rank() == 0:
        first = hvd.allreduce_async(torch.ones(2), name="twice")
        raises(ValueError, lambda: hvd.allreduce_async(torch.ones(2), name="twice"), "twice")
        gathered = hvd.allgather_async(torch.ones(1), name="twice")
        hvd.barrier()
    else:
        hvd.barrier()
        first = hvd.allreduce_async(torch.ones(2), name="twice")
        gathered = hvd.allgather_async(torch.ones(1), name="twice")
    hvd.synchronize(first)
    hvd.synchronize(gathered)
    hvd.allreduce(torch.ones(2), name="twice")


@on_ranks(2)
def test_ranks_that_differ_fail_that_call_alone() -> None:
    rank = hvd.rank()
    other = hvd.allreduce_async(torch.ones(3), name="other")
    whole = torch.ones(2, dtype=torch.int32)
    wrong = [
        hvd.allreduce_async(torch.ones(2 + rank), name="shape"),
        hvd.allreduce_async(torch.ones(2, dtype=FLOATING[2 + rank]), name="type"),
        hvd.allreduce_async(torch.ones(2), name="op", op=[hvd.Sum, hvd.Max][rank]),
        hvd.allreduce_async(torch.ones(2), name="factor", prescale_factor=1.0 + rank),
        hvd.broadcast_async(torch.ones(2), rank, name="root"),
        hvd.allgather_async(torch.ones(2, 2 + rank), name="rows"),
        hvd.alltoall_async(torch.ones(2, 2 + rank), name="all"),
        hvd.reducescatter_async(torch.ones(2, 2 + rank), name="part"),
        hvd.allreduce_async(torch.ones(2 + rank, dtype=torch.int32), name="integers"),
        hvd.allreduce_async(whole, name="rounded", op=[hvd.Sum, hvd.Average][rank]),
        hvd.allreduce_async(whole, name="both", prescale_factor=1.0 + rank),
        hvd.reducescatter_async(whole, name="scaled", op=hvd.Sum, postscale_factor=2.0 - rank),
        hvd.allreduce_async(whole.to([torch.int32, torch.bool][rank]), name="wide"),
    ]
    for handle in wrong:
        raises(hvd.HorovodInternalError, lambda handle=handle: hvd.synchronize(handle), "rank")
        assert hvd.synchronize(handle) is None
    same(hvd.synchronize(other), torch.ones(3))
    raises(
        hvd.HorovodInternalError, lambda: hvd.allreduce(torch.ones(2 + rank), name="shape"), "shape"
    )
    same(hvd.allreduce(torch.ones(1), name="shape"), torch.ones(1))


@on_ranks(2)
def test_wrong_arguments() -> None:
    for call in [
        hvd.allreduce,
        hvd.allreduce_,
        hvd.allreduce_async,
        hvd.allreduce_async_,
        hvd.allgather,
        hvd.allgather_async,
        lambda x: hvd.broadcast(x, 0),
        lambda x: hvd.broadcast_async_(x, 0),
        hvd.alltoall,
        hvd.reducescatter,
        lambda x: hvd.grouped_allreduce([x]),
        lambda x: hvd.grouped_allgather([x]),
        lambda x: hvd.grouped_reducescatter([x]),
    ]:
        for wrong, text in [
            ([1.0, 2.0], "torch.Tensor"),
            (torch.ones(2, dtype=torch.complex64), "complex64"),
            (torch.ones(2, device="meta"), "meta"),
            (torch.ones(2).to_sparse(), "sparse"),
        ]:
            raises(ValueError, lambda call=call, wrong=wrong: call(wrong), text)
    x = torch.ones(2)
    raises(ValueError, lambda: hvd.broadcast(x, 2), "root_rank")
    raises(ValueError, lambda: hvd.broadcast(x, -1), "root_rank")
    for call in (hvd.allreduce, hvd.reducescatter, hvd.allreduce_async_, hvd.reducescatter_async):
        for wrong in ("sum", 0):
            raises(ValueError, lambda call=call, wrong=wrong: call(x, op=wrong), "hvd.Sum")
    raises(ValueError, lambda: hvd.reducescatter(x, op=None), "hvd.Sum")
    raises(ValueError, lambda: hvd.allreduce(x, compression=3), "compression")
    raises(ValueError, lambda: hvd.allreduce([1.0], compression=hvd.Compression.fp16), "Tensor")
    for call in (hvd.allreduce, hvd.allgather, hvd.alltoall, hvd.reducescatter):
        raises(ValueError, lambda call=call: call(x, name=3), "name")
    raises(ValueError, lambda: hvd.broadcast(x, 0, name=3), "name")
    raises(ValueError, lambda: hvd.grouped_allreduce([x], name=3), "name")
    same(hvd.allreduce(x, compression=None), x)
    hvd.allreduce(x)  # nothing was sent


@on_ranks(2)
def test_a_wrong_tensor_of_a_group_keeps_all_of_it_back() -> None:
    x = torch.ones(2)
    wrong = torch.ones(2, dtype=torch.uint64)
    raises(ValueError, lambda: hvd.grouped_allreduce_([x, wrong], name="g"), "uint64")
    raises(ValueError, lambda: hvd.grouped_allreduce_async([x, wrong], name="g"), "uint64")
    raises(ValueError, lambda: hvd.grouped_allreduce([x, x.int()], op=hvd.Adasum, name="g"))
    negative = torch.full((2,), 1j).conj().imag
    raises(ValueError, lambda: hvd.grouped_allreduce_([x, negative], name="g"), "read only")
    for scatter in (hvd.grouped_reducescatter, hvd.grouped_reducescatter_async):
        raises(ValueError, lambda scatter=scatter: scatter([x, x[0]], name="g"), "dimension")
    # Nothing is under way that has one of these names.
    hvd.grouped_allreduce_([x, 3 * x], name="g", op=hvd.Sum)
    same(x, torch.full((2,), 2.0))
    same(hvd.grouped_reducescatter([x, x], name="g")[1], x[:1])


@on_ranks(2)
def test_a_group_that_fails_has_completed() -> None:
    rank = hvd.rank()
    large = torch.ones(200_000)
    x = torch.ones(2 + rank, 2 + rank)
    raises(hvd.HorovodInternalError, lambda: hvd.grouped_allreduce([x, large], name="g"), "rank")
    raises(hvd.HorovodInternalError, lambda: hvd.grouped_allgather([x, large], name="g"), "rank")
    # So the names are free at once.
    same(hvd.grouped_allreduce([large[:2], large], name="g")[1], large)
    same(hvd.grouped_allgather([large[:2], large], name="g")[1], torch.ones(400_000))


@on_ranks(2)
def test_copies_of_operations() -> None:
    average, total, adasum = (copy.deepcopy(op) for op in (hvd.Average, hvd.Sum, hvd.Adasum))
    x = torch.tensor([3, 5])
    same(hvd.allreduce(x, op=average), x)
    same(hvd.reducescatter(x, op=average), x[hvd.rank() :][:1])
    raises(RuntimeError, lambda: hvd.reducescatter(x.float(), op=adasum), "Adasum")
    raises(ValueError, lambda: hvd.allreduce(x, op=adasum), "floating")
    ones = torch.ones(2, 2)
    mean = hvd.sparse_allreduce_async(ones.to_sparse(), "mean", average)
    same(hvd.synchronize(mean).to_dense(), ones)
    y = torch.ones(2, requires_grad=True)
    hvd.reducescatter(y, op=total).sum().backward()
    same(y.grad, torch.full((2,), 2.0))


@on_ranks(2, 3)
def test_process_sets() -> None:
    size, rank = hvd.size(), hvd.rank()
    pair = hvd.ProcessSet([1, 0])
    assert (pair.rank(), pair.size(), pair.included()) == (None, None, None)
    raises(ValueError, lambda: hvd.allreduce(torch.ones(1), process_set=pair), "not in use")
    if size > 2:
        assert hvd.add_process_set(pair) is pair
        assert pair.size() == 2 and pair.included() == (rank < 2) and pair.ranks == [0, 1]
        known = hvd.get_process_set_ids_and_ranks()
        assert known[0] == list(range(size)) and known[pair.process_set_id] == [0, 1]
        x = torch.ones(2)
        if rank < 2:
            assert pair.rank() == rank
            both = hvd.allreduce_async(x, name="x", process_set=pair)  # another key
            same(hvd.allreduce(x, op=hvd.Sum, process_set=pair), 2 * x)
            same(hvd.allreduce(x.int(), process_set=pair), x.int())
            same(hvd.broadcast(x * rank, 1, process_set=pair), x)
            assert hvd.allgather(x, process_set=pair).shape == (4,)
            assert hvd.alltoall(x, process_set=pair).shape == (2,)
            assert hvd.reducescatter(x, process_set=pair).shape == (1,)
            assert hvd.broadcast_object(rank, 1, process_set=pair) == 1
            hvd.barrier(pair)
            same(hvd.synchronize(both), x)
        else:
            for call in (hvd.allreduce, hvd.allgather, hvd.alltoall, hvd.reducescatter):
                raises(ValueError, lambda call=call: call(x, process_set=pair), "not a member")
            raises(ValueError, lambda: hvd.barrier(pair), "not a member")
        raises(ValueError, lambda: hvd.broadcast(x, 2, process_set=pair))
        raises(ValueError, lambda: hvd.add_process_set([0, 1]), "already")
        hvd.allreduce(x, name="x")
        assert hvd.remove_process_set(pair)
    assert not hvd.remove_process_set(pair)
    raises(TypeError, lambda: hvd.remove_process_set([0, 1]))
    assert (pair.rank(), pair.size(), pair.included()) == (None, None, None)
    raises(ValueError, lambda: hvd.add_process_set(range(size)), "already")
    raises(ValueError, lambda: hvd.add_process_set([size]), f"rank {size}")
    assert not hvd.remove_process_set(hvd.global_process_set)
    world = hvd.global_process_set
    assert (world.rank(), world.size(), world.included()) == (rank, size, True)
    assert world.ranks == list(range(size)) and world.process_set_id == 0
    import ronde
    from mpi4py import MPI

    assert hvd.ProcessSet(MPI.COMM_WORLD).ranks == list(range(size))
    same(hvd.allreduce(torch.ones(1), process_set=ronde.global_process_set), torch.ones(1))
    first = hvd.add_process_set([0])
    assert isinstance(first, hvd.ProcessSet) and first.included() == (rank == 0)
    assert hvd.remove_process_set(first)


# --- ranks that have joined


@on_ranks(2, 3)
def test_ranks_that_have_joined_add_zeros() -> None:
    size, rank = hvd.size(), hvd.rank()
    if rank == 0:
        assert hvd.join() == size - 1
    else:
        x = torch.ones(2)
        same(hvd.allreduce(x, op=hvd.Sum), (size - 1) * x)
        same(hvd.allreduce(size * x, name="mean"), (size - 1) * x)
        same(hvd.allreduce_(x.int() * size), (size - 1) * x.int())
        for call in [
            lambda: hvd.allgather(x),
            lambda: hvd.broadcast(x, 1),
            lambda: hvd.broadcast_(x.clone(), 0),
            lambda: hvd.grouped_allgather([x, x]),
        ]:
            raises(hvd.HorovodInternalError, call, "join")
        handles = hvd.allgather_async(x, "g"), hvd.broadcast_async(x, 1, "b")
        for handle in handles:
            raises(hvd.HorovodInternalError, lambda handle=handle: hvd.synchronize(handle), "join")
        same(hvd.allreduce(x, op=hvd.Sum), (size - 1) * x)
        if rank == size - 1:  # so it is the last
            while rank > 1 and hvd.allreduce(x, op=hvd.Sum)[0] > 1:
                pass
        assert hvd.join() == size - 1
    same(hvd.allgather(torch.ones(1)), torch.ones(size))
