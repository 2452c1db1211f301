"""Gradients through the collectives of `hvd`.

The loss of rank r is the sum of w_r * output, so the gradient that enters backward there is w_r.
"""

from __future__ import annotations

from typing import Any

import pytest
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde.torch as hvd  # noqa: E402


def weights(rank: int, *shape: int) -> Any:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def leaf(*shape: int) -> Any:
    return (weights(100 + hvd.rank(), *shape)).requires_grad_()


def gradient(x: Any, output: Any) -> Any:
    """Of x, for this rank's weights of the output."""
    (output * weights(hvd.rank(), *output.shape)).sum().backward()
    return x.grad


def of_all(*shape: int) -> Any:
    return torch.stack([weights(rank, *shape) for rank in range(hvd.size())])


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@on_ranks(2, 3)
def test_of_allreduce() -> None:
    total = of_all(3, 2).sum(0)
    x = leaf(3, 2)
    close(gradient(x, hvd.allreduce(x)), total / hvd.size())
    x = leaf(3, 2)
    close(gradient(x, hvd.allreduce(x, op=hvd.Sum)), total)
    x = leaf(3, 2)
    y = hvd.allreduce(x, op=hvd.Sum, prescale_factor=0.5, postscale_factor=3.0)
    close(gradient(x, y), 1.5 * total)


@on_ranks(2)
def test_of_allreduce_is_what_the_sum_of_all_losses_has() -> None:
    x = leaf(4)
    every = hvd.allgather(x.detach().reshape(1, 4))
    hvd.allreduce(x, op=hvd.Sum).pow(2).sum().backward()
    close(x.grad, 2 * 2 * every.sum(0))  # two losses of (x_0 + x_1)^2


@on_ranks(2)
def test_of_groups() -> None:
    a, b = leaf(3), leaf(2, 2)
    total_a, total_b = of_all(3).sum(0), of_all(2, 2).sum(0)
    y, z = hvd.grouped_allreduce([a, b], op=hvd.Sum)
    weighted = (y * weights(hvd.rank(), 3)).sum() + (z * weights(hvd.rank(), 2, 2)).sum()
    weighted.backward()
    close(a.grad, total_a)
    close(b.grad, total_b)
    a.grad = b.grad = None
    y, z = hvd.grouped_allreduce([a, b])  # z is not used
    close(gradient(a, y), total_a / 2)
    assert b.grad is None or not b.grad.any()
    a, constant = leaf(3), torch.ones(2)
    y, z = hvd.grouped_allreduce([a, constant])
    assert z.tolist() == [1.0, 1.0]
    close(gradient(a, y), total_a / 2)


@on_ranks(2)
def test_of_compressed() -> None:
    x = torch.ones(2, requires_grad=True)
    hvd.allreduce(x, op=hvd.Sum, compression=hvd.Compression.fp16).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0] and x.grad.dtype == torch.float32


@on_ranks(2, 3)
def test_of_allgather() -> None:
    size, rank = hvd.size(), hvd.rank()
    rows = [r + 1 for r in range(size)]
    start = sum(rows[:rank])
    mean = of_all(sum(rows), 2).mean(0)
    x = leaf(rows[rank], 2)
    close(gradient(x, hvd.allgather(x)), mean[start : start + rows[rank]])
    x, y = leaf(rows[rank], 2), leaf()
    gathered, numbers = hvd.grouped_allgather([x, y])
    assert numbers.shape == (size,)
    close(gradient(x, gathered), mean[start : start + rows[rank]])


@on_ranks(2, 3)
def test_of_broadcast() -> None:
    root = hvd.size() - 1
    x = leaf(3)
    found = gradient(x, hvd.broadcast(x, root))
    close(found, of_all(3).mean(0) * (hvd.rank() == root))


@on_ranks(2, 3)
def test_of_alltoall() -> None:
    size, rank = hvd.size(), hvd.rank()
    # Rank r sends r + 1 rows to each, so each gets 1 of rank 0, 2 of rank 1 and so on.
    sent, received = rank + 1, size * (size + 1) // 2
    every = of_all(received, 2)
    start = rank * (rank + 1) // 2
    x = leaf(size * sent + 2, 2)  # the last two rows stay
    joined, counts = hvd.alltoall(x, [sent] * size)
    assert not counts.requires_grad
    expected = torch.cat([*every[:, start : start + sent], torch.zeros(2, 2, dtype=torch.float64)])
    close(gradient(x, joined), expected)
    x = leaf(size, 2)
    close(
        gradient(x, hvd.alltoall(x)), torch.stack([weights(r, size, 2)[rank] for r in range(size)])
    )


@on_ranks(2, 3)
def test_of_reducescatter() -> None:
    size = hvd.size()
    parts = [weights(r, 1 + (r == 0), 2) for r in range(size)]
    gathered = torch.cat(parts)
    x = leaf(size + 1, 2)
    close(gradient(x, hvd.reducescatter(x)), gathered)
    x = leaf(size + 1, 2)
    y = hvd.reducescatter(x, op=hvd.Sum, prescale_factor=0.5, postscale_factor=3.0)
    close(gradient(x, y), 1.5 * size * gathered)
    x = leaf(size + 1, 2)
    [y] = hvd.grouped_reducescatter([x], op=hvd.Sum)
    close(gradient(x, y), size * gathered)
    with pytest.raises(ValueError, match="no gradient"):
        hvd.reducescatter(x, op=hvd.Max)
    hvd.reducescatter(x.detach(), op=hvd.Max)


@on_ranks(2)
def test_of_gradients() -> None:
    x = leaf(3)
    y = hvd.allreduce(x.pow(3), op=hvd.Sum)
    [first] = torch.autograd.grad(y.sum(), x, create_graph=True)
    close(first.detach(), 2 * 3 * x.detach() ** 2)
    [second] = torch.autograd.grad(first.sum(), x)
    close(second, 2 * 6 * x.detach())


@on_ranks(2)
def test_in_process_sets() -> None:
    mine = [hvd.add_process_set([rank]) for rank in range(2)][hvd.rank()]
    x = leaf(3)
    close(gradient(x, hvd.allreduce(x, process_set=mine)), weights(hvd.rank(), 3))
    x = leaf(3)
    close(gradient(x, hvd.broadcast(x, hvd.rank(), process_set=mine)), weights(hvd.rank(), 3))
    x = leaf(3)
    close(gradient(x, hvd.allgather(x, process_set=mine)), weights(hvd.rank(), 3))


@on_ranks(2)
def test_only_where_asked_for() -> None:
    x = leaf(3)
    assert hvd.allreduce(x).requires_grad
    with torch.no_grad():
        assert not hvd.allreduce(x).requires_grad
    assert not hvd.allreduce(x.detach()).requires_grad
    assert not hvd.synchronize(hvd.allreduce_async(x)).requires_grad
    x = torch.ones(2, requires_grad=True)
    assert not hvd.synchronize(hvd.broadcast_async(x, 0)).requires_grad
    assert hvd.broadcast_(x, 0) is x and x.is_leaf


@on_ranks(2)
def test_errors_show_the_line_of_the_program() -> None:
    x = torch.ones(2 + hvd.rank(), requires_grad=True)
    with pytest.raises(hvd.HorovodInternalError, match=r"test_gradients\.py"):
        hvd.allreduce(x)
