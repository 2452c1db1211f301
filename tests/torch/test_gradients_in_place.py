"""Gradients of ranks of one machine are reduced where autograd has put them: nobody else's memory changes."""

from __future__ import annotations

from typing import Any

import pytest
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde  # noqa: E402
import ronde.torch as hvd  # noqa: E402
from torch import nn  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402

LONG = 1 << 20  # elements, so that a reduction is under way while the pass goes on


def params(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


def summed(parameters: list[nn.Parameter], **options: Any) -> Any:
    return hvd.DistributedOptimizer(torch.optim.SGD(parameters, 0.0), op=ronde.Sum, **options)


def mine() -> float:
    return ronde.rank() + 1.0


def total() -> float:
    """Of what the ranks have."""
    return ronde.size() * (ronde.size() + 1) / 2


def require(x: torch.Tensor | None, value: float) -> None:
    assert x is not None
    assert torch.equal(x, torch.full_like(x, value)), (x.min(), x.max(), value)


def move(_: torch.Tensor) -> None:
    """What has been submitted before is reduced, most likely."""
    for i in range(2):
        hvd.allreduce(torch.ones(LONG), name=f"meanwhile {i}")


def finish(*optimizers: Any) -> None:
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_gradients_that_share_memory() -> None:
    """Autograd gives both parameters views of one gradient, whether or not they are in one bucket."""
    for bucket in ("one", "two", "optimizers"):
        a, b = params((2, LONG // 2), (LONG // 2, 2))
        if bucket == "optimizers":
            optimizers = [summed([a]), summed([b])]
        else:
            optimizers = [summed([a, b], groups=1 if bucket == "one" else 2)]
        for _ in range(4):
            ((a.view(-1) + b.view(-1)) * torch.full((LONG,), mine())).sum().backward()
            require(a.grad, total())
            require(b.grad, total())
            finish(*optimizers)


@on_ranks(2)
def test_a_gradient_that_autograd_still_needs() -> None:
    """As of a position embedding that is added to what others have computed."""
    w, position = params((LONG,), (LONG,))
    optimizer = summed([w, position], groups=2)
    for _ in range(4):
        y = (w * 1.0).view(1, -1)
        y.register_hook(move)
        ((y + position.unsqueeze(0)) * torch.full((1, LONG), mine())).sum().backward()
        require(position.grad, total())
        require(w.grad, total())
        finish(optimizer)


@on_ranks(2)
def test_memory_of_the_caller() -> None:
    """What begins a pass, and what a parameter outside of the optimizer has."""
    w, other = params((2, 3), (6,))
    optimizer = summed([w])
    for _ in range(3):
        begin = torch.full((6,), mine())
        other.grad = None
        (w.view(-1) + other.view(6)).backward(begin)
        require(w.grad, total())
        require(begin, mine())
        require(other.grad, mine())
        finish(optimizer)


@on_ranks(2)
def test_one_tensor_as_two_gradients() -> None:
    """A gradient that no rank has anew stays, though its memory is that of another."""
    a, b = params((3,), (3,))
    optimizer = summed([a, b])
    (a + b).sum().backward()
    finish(optimizer)
    a.grad = b.grad = torch.ones(3)
    (a.sum() * mine()).backward()
    require(a.grad, total() + 2)
    require(b.grad, mine() + 1)
    finish(optimizer)


@on_ranks(2)
def test_gradients_that_one_rank_drops() -> None:
    """Between two passes. It has none then, and sends none."""
    a, b = params((3,), (4,))
    optimizer = summed([a, b], backward_passes_per_step=2)
    for _ in range(3):
        (a.sum() + b.sum()).backward()  # both are in one bucket
        finish(optimizer)
        if ronde.rank() == 0:
            a.sum().backward()
            a.grad = None
        (b.sum() * mine()).backward()
        optimizer.synchronize()
        assert a.grad is None
        require(b.grad, total())
        finish(optimizer)


@on_ranks(2)
def test_memory_is_reused_and_given_back() -> None:
    """Gradients that are zeroed stay where they are; dropped ones do not outlive the step."""
    for compression in (None, hvd.Compression.fp16, "int4"):
        w, transposed = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5, 3).t())
        half = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
        weights = [w, transposed, half]
        optimizer = summed(weights, compression=compression)
        places = []
        for _ in range(4):
            (sum(param.sum() for param in weights) * mine()).backward()
            places.append([param.grad.data_ptr() for param in weights])
            for param in weights:
                require(param.grad, total())
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        assert places[1:] == places[:-1]
        memory = [StorageWeakRef(param.grad.untyped_storage()) for param in weights]
        optimizer.zero_grad()
        assert all(each.expired() for each in memory), compression


@on_ranks(2)
def test_a_net_of_many_kinds() -> None:
    """Over several passes, with parts frozen in one step: the sum over ranks and passes."""
    torch.manual_seed(1)
    image, scale = (
        nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last),
        nn.Parameter(torch.ones(())),
    )
    half, table = nn.Parameter(torch.ones(4, dtype=torch.bfloat16)), nn.Embedding(5, 4, sparse=True)
    weights = [*image.parameters(), scale, half, table.weight, nn.Parameter(torch.zeros(0, 3))]

    def loss(x: torch.Tensor, rank: int) -> torch.Tensor:
        rows = table(torch.tensor([rank, 4])) * half * scale  # both more than once
        return (
            image(x).square().sum() + rows.sum() + (half * half).sum() + weights[-1].sum()
        ) * scale

    optimizer = summed(weights, backward_passes_per_step=2, sparse_as_dense=True)
    for step in range(4):
        for param in image.parameters():
            param.requires_grad_(step != 1)
        inputs = torch.randn(2, ronde.size(), 1, 2, 5, 5)
        trained = [param for param in weights if param.requires_grad]
        expected = [torch.zeros_like(param) for param in trained]
        for rank in range(ronde.size()):
            for number in range(2):
                grads = torch.autograd.grad(loss(inputs[number, rank], rank), trained)
                for sum_, grad in zip(expected, grads, strict=True):
                    sum_ += grad.to_dense()
        for number in range(2):
            loss(inputs[number, ronde.rank()], ronde.rank()).backward()
        for param, sum_ in zip(trained, expected, strict=True):
            torch.testing.assert_close(param.grad, sum_.detach(), rtol=0.02, atol=0.02)
            assert param.grad.stride() == param.stride()
        finish(optimizer)
