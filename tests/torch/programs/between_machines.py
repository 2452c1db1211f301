"""Training over messages, as between machines: what depends on buckets, and what compressors keep."""

from __future__ import annotations

import copy
from typing import Any

import ronde
import ronde.torch as hvd
import torch
from torch import nn

NAMES = ["0.weight", "2.weight"]  # biases are not compressed


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 3))


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(100 * step + ronde.rank())
        x = torch.randn(8, 30, generator=generator)
        optimizer.zero_grad()
        (model(x) - 1).pow(2).mean().backward()
        optimizer.step()


def made(model: nn.Module, **options: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    return hvd.DistributedOptimizer(optimizer, model.named_parameters(), **options)


def bits(model: nn.Module) -> bytes:
    return b"".join(param.detach().numpy().tobytes() for param in model.parameters())


def do_buckets_change_bits() -> None:
    found = set()
    for groups in (0, 0, 2, 100):
        model = net()
        train(model, made(model, groups=groups), range(4))
        found.add(bits(model))
    assert len(set(ronde.allgather_object(bits(model)))) == 1
    assert len(found) == 1, "buckets change bits in deterministic mode"


def is_feedback_kept() -> None:
    """By the names of parameters, and over a checkpoint."""
    model, feedback = net(), ronde.compression.ErrorFeedback("int4")
    optimizer = made(model, compression=feedback)
    train(model, optimizer, range(3))
    norms = feedback.norms()
    assert sorted(norms) == NAMES
    assert all(norms.values())
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), feedback.state_dict()))
    train(model, optimizer, range(3, 6))
    assert len(set(ronde.allgather_object(bits(model)))) == 1
    again, kept = net(), ronde.compression.ErrorFeedback("int4")
    again.load_state_dict(saved[0])
    kept.load_state_dict(saved[2])
    optimizer = made(again, compression=kept)
    optimizer.load_state_dict(saved[1])
    train(again, optimizer, range(3, 6))
    assert bits(again) == bits(model), "a restart has changed bits"


def do_gradients_wait_beside_kept_ones() -> None:
    """They share a bucket with one that no rank has anew."""
    a, b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD([a, b], 1.0), op=ronde.Sum)
    (a.sum() + b.sum()).backward()
    optimizer.step()
    a.grad = None
    a.sum().backward()
    for param in (a, b):
        assert param.grad is not None
        assert param.grad.tolist() == [ronde.size()] * len(param)
    try:
        optimizer.zero_grad()
    except AssertionError:
        return
    raise RuntimeError("reduced gradients were lost")


def do_compressors_learn() -> None:
    for compression in ("int8", "int4", "auto", {"0.weight": "sign"}, hvd.Compression.bf16):
        model = net()
        train(model, made(model, compression=compression), range(60))
        loss = (model(torch.randn(64, 30)) - 1).pow(2).mean().item()
        assert loss < 0.3, (compression, loss)


def are_gradients_of_compressed_sums_exact() -> None:
    """As what a compressor leaves out of a call without a name would belong to no call."""
    x = torch.linspace(-1, 1, 1000).requires_grad_()
    weights = torch.linspace(0, 3, 1000) ** (1 + ronde.rank())
    (hvd.allreduce(x, name="compressed", compression="int4") * weights).sum().backward()
    torch.testing.assert_close(x.grad, hvd.allreduce(weights))


if __name__ == "__main__":
    torch.set_num_threads(1)
    ronde.init()
    do_buckets_change_bits()
    is_feedback_kept()
    do_gradients_wait_beside_kept_ones()
    do_compressors_learn()
    are_gradients_of_compressed_sums_exact()
    ronde.barrier()
    print(f"rank {ronde.rank()} is done", flush=True)
