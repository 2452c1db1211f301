"""A hook for DDP that reduces gradients by Ronde, compressed."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde.torch.distributed  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402

GROUPS: dict[str, Any] = {}


def begin() -> None:
    # Ranks of one machine that share memory have nothing to compress.
    ronde.shutdown()
    os.environ["RONDE_SHARED_MEMORY"] = "0"
    dist.init_process_group("ronde")
    GROUPS["ronde"], GROUPS["gloo"] = dist.group.WORLD, dist.new_group(backend="gloo")


def end() -> None:
    dist.destroy_process_group()


def model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )


def parallel(module: Any, group: str = "ronde", **options: Any) -> Any:
    return nn.parallel.DistributedDataParallel(module, process_group=GROUPS[group], **options)


def hooked(module: Any, state: Any, group: str = "ronde", **options: Any) -> Any:
    wrapped = parallel(module, group, **options)
    wrapped.register_comm_hook(state, ronde.torch.comm_hook)
    return wrapped


def state_of(module: Any, compression: Any) -> Any:
    return ronde.torch.CommHookState(compression, named_parameters=module.named_parameters())


def train(wrapped: Any, steps: int, first: int = 0) -> float:
    """The loss of the last step."""
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
        x = torch.randn(32, 8, generator=generator)
        optimizer.zero_grad()
        loss = (wrapped(x) - x[:, :1]).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def weights(module: Any) -> Any:
    return torch.cat([each.detach().reshape(-1) for each in module.parameters()])


def require_same_bits(module: Any) -> None:
    everywhere = ronde.allgather(weights(module).unsqueeze(0))
    assert all(torch.equal(each, everywhere[0]) for each in everywhere)


@on_ranks(2, 3)
def test_exact_gradients_are_those_of_ddp() -> None:
    for group in GROUPS:
        for options in ({}, {"bucket_cap_mb": 0.01}, {"static_graph": True}):
            wanted, found = model(), model()
            train(parallel(wanted, group), 4)
            train(hooked(found, ronde.torch.CommHookState(), group, **options), 4)
            torch.testing.assert_close(weights(found), weights(wanted))


@on_ranks(2)
def test_every_compressor_trains_alike_on_all_ranks() -> None:
    start = train(parallel(model()), 1)
    for compression in (
        *("none", "fp16", "bf16", "fp8", "int8", "int4", "sign", "ternary", "auto"),
        ronde.compression.topk(0.1),
        ronde.compression.powersgd(4),
        ronde.compression.dgc(0.1),
        ronde.compression.shared_scale(),
    ):
        module = model()
        last = train(hooked(module, state_of(module, compression)), 15)
        require_same_bits(module)
        assert last < start, compression


@on_ranks(2)
def test_residuals_belong_to_parameters_whatever_their_buckets() -> None:
    kept = {}
    for megabytes in (25, 0.01):
        module = model()
        state = state_of(module, ronde.compression.int4())
        train(hooked(module, state, bucket_cap_mb=megabytes), 3)  # new buckets after the first
        kept[megabytes] = state.compression.norms()
    matrices = {name for name, each in module.named_parameters() if each.dim() > 1}
    assert set(kept[25]) == set(kept[0.01]) == matrices


@on_ranks(2)
def test_a_run_goes_on_from_a_saved_state() -> None:
    module = model()
    state = state_of(module, "int4")
    train(hooked(module, state), 3)
    saved = copy.deepcopy(state.state_dict())
    found = []
    for _ in range(2):
        resumed = copy.deepcopy(module)
        again = state_of(resumed, "int4")
        again.load_state_dict(saved)
        assert again.compression.norms() == state.compression.norms() != {}
        train(hooked(resumed, again), 3, first=3)
        found.append(weights(resumed))
    assert torch.equal(*found)
    forgetful = copy.deepcopy(module)
    train(hooked(forgetful, state_of(forgetful, "int4")), 3, first=3)
    assert not torch.equal(weights(forgetful), found[0])
    with pytest.raises(ValueError, match="belongs"):
        ronde.torch.CommHookState("int8").load_state_dict(saved)
    with pytest.raises(ValueError, match="belongs"):
        ronde.torch.CommHookState().load_state_dict(saved)


@on_ranks(2)
def test_two_models_at_once() -> None:
    first, second = model(), model()
    states = [state_of(each, "int8") for each in (first, second)]
    wrapped = [hooked(each, state) for each, state in zip((first, second), states, strict=True)]
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(dist.get_rank()))
    sum(each(x).square().mean() for each in wrapped).backward()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@on_ranks(3)
def test_a_model_of_some_ranks() -> None:
    group = dist.new_group([0, 2])
    if dist.get_rank() != 1:
        module = model()
        wrapped = nn.parallel.DistributedDataParallel(module, process_group=group)
        state = ronde.torch.CommHookState("int4", process_set=group.process_set)
        wrapped.register_comm_hook(state, ronde.torch.comm_hook)
        train(wrapped, 2)
        same = ronde.allgather(weights(module).unsqueeze(0), process_set=group.process_set)
        assert torch.equal(same[0], same[1])
    dist.barrier()


@on_ranks(2)
def test_what_is_no_compressor_or_state_raises() -> None:
    with pytest.raises(TypeError, match="compression"):
        ronde.torch.CommHookState(3)
    with pytest.raises(ValueError, match="int44"):
        ronde.torch.CommHookState("int44")
    wrapped = hooked(model(), "int4")
    with pytest.raises(TypeError, match="CommHookState"):
        wrapped(torch.ones(1, 8)).sum().backward()
