"""What torch builds on `torch.distributed`, over backend="ronde"."""

from __future__ import annotations

import copy
import tempfile
import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde.torch.distributed  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402

try:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    is_old = False
except ImportError:  # torch 2.4
    from torch.distributed._composable.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed._tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    is_old = True

fully_sharded = pytest.mark.skipif(is_old, reason="FSDP2 of torch 2.4 needs GPUs")
STEPS, BATCH = 4, 8


def begin() -> None:
    dist.init_process_group("ronde")
    warnings.simplefilter("ignore")


def end() -> None:
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank()


def size() -> int:
    return dist.get_world_size()


class Model(nn.Module):
    """With a part that only some steps use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 1)
        self.seldom = nn.Linear(16, 16)

    def forward(self, x: Any, seldom: bool = True) -> Any:
        x = torch.tanh(self.first(x))
        return self.second(torch.tanh(self.seldom(x)) if seldom else x)


def batch(step: int, which: int | None = None) -> Any:
    """That of a rank, or of all ranks."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH * size(), 4, generator=generator)
    return x if which is None else x[BATCH * which : BATCH * (which + 1)]


def trained(model: Any, which: int | None, **options: Any) -> Any:
    """The model after a few steps on the batches of a rank, or of all."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(model, batch(step, which), **options).backward()
        optimizer.step()
    return model


def loss(model: Any, x: Any, **options: Any) -> Any:
    return (model(x, **options) - x.sum(1, keepdim=True)).square().mean()


def require_like_one_process(model: Any, **options: Any) -> None:
    """As one process would have trained on the batches of all."""
    wanted = trained(Model(), None, **options)
    for name, parameter in wanted.named_parameters():
        found = dict(model.named_parameters())[name]
        found = found.full_tensor() if hasattr(found, "full_tensor") else found
        torch.testing.assert_close(found, parameter, msg=name)


@on_ranks(2)
def test_data_parallel_training_is_like_one_process() -> None:
    for options in (
        {},
        {"bucket_cap_mb": 1e-4},
        {"static_graph": True},
        {"gradient_as_bucket_view": True},
    ):
        model = Model()
        trained(nn.parallel.DistributedDataParallel(model, **options), rank())
        require_like_one_process(model)


@on_ranks(2)
def test_data_parallel_training_with_unused_parameters() -> None:
    model = Model()
    parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    trained(parallel, rank(), seldom=False)
    require_like_one_process(model, seldom=False)
    # Used on one rank only, a parameter has the average of a gradient and of nothing.
    parallel.zero_grad()
    loss(parallel, batch(0, rank()), seldom=rank() == 0).backward()
    sums = ronde.allgather_object(model.seldom.weight.grad.sum().item())
    assert sums[0] == sums[1] != 0


@on_ranks(2)
def test_data_parallel_training_accumulates_without_communication() -> None:
    model = Model()
    parallel = nn.parallel.DistributedDataParallel(model)
    for step in range(2):
        with parallel.no_sync() if step == 0 else nullcontext():
            loss(parallel, batch(step, rank())).backward()
        sums = ronde.allgather_object(model.first.weight.grad.sum().item())
        assert (sums[0] == sums[1]) == (step == 1)


@on_ranks(2)
def test_a_mismatch_in_a_backward_pass_is_an_error_of_it() -> None:
    parallel = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))

    parallel.register_comm_hook(
        None,
        lambda state, bucket: dist.all_reduce(torch.ones(2 + rank()), async_op=True).get_future(),
    )
    with pytest.raises(ronde.MismatchError, match="allreduce"):
        parallel(torch.ones(1, 2)).sum().backward()


@on_ranks(2)
def test_hooks_of_torch() -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    model = Model()
    parallel = nn.parallel.DistributedDataParallel(model)
    parallel.register_comm_hook(None, default_hooks.fp16_compress_hook)
    trained(parallel, rank())
    assert len(set(ronde.allgather_object(model.first.weight.sum().item()))) == 1
    model = Model()
    parallel = nn.parallel.DistributedDataParallel(model)
    state = powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2, min_compression_rate=0.1)
    parallel.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    trained(parallel, rank())
    assert len(set(ronde.allgather_object(model.first.weight.sum().item()))) == 1


@fully_sharded
@on_ranks(2)
def test_fully_sharded_training_is_like_one_process() -> None:
    model = Model()
    mesh = init_device_mesh("cpu", (size(),))
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)
    require_like_one_process(trained(model, rank()))
    model = fully_shard(
        Model(), mesh=mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16)
    )
    after = loss(trained(model, rank()), batch(0, rank())).item()
    assert after < loss(Model(), batch(0, rank())).item()


@fully_sharded
@on_ranks(4)
def test_shards_and_replicas() -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
    require_like_one_process(trained(fully_shard(Model(), mesh=mesh), rank()))


@on_ranks(2)
def test_distributed_tensors() -> None:
    mesh = init_device_mesh("cpu", (size(),))
    for dtype in (torch.float32, torch.bfloat16):
        whole = torch.arange(24).reshape(6, 4).to(dtype)
        rows = distribute_tensor(whole, mesh, [Shard(0)])
        assert torch.equal(rows.full_tensor(), whole)
        columns = rows.redistribute(mesh, [Shard(1)])
        assert torch.equal(columns.to_local(), whole.chunk(size(), 1)[rank()])
        product = rows @ columns.t().redistribute(mesh, [Replicate()])
        assert torch.equal(product.full_tensor(), whole @ whole.t())
        assert rows.sum().full_tensor() == whole.sum()
        sums = DTensor.from_local(whole, mesh, [Partial()]).redistribute(mesh, [Shard(0)])
        assert torch.equal(sums.to_local(), size() * whole.chunk(size())[rank()])


@on_ranks(2)
def test_tensor_parallel_training_is_like_one_process() -> None:
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    model = Model()
    mesh = init_device_mesh("cpu", (size(),))
    parallelize_module(model, mesh, {"first": ColwiseParallel(), "second": RowwiseParallel()})
    trained(model, None, seldom=False)
    require_like_one_process(model, seldom=False)


@on_ranks(2)
def test_functional_collectives_and_their_gradients() -> None:
    import torch.distributed._functional_collectives as functional

    group = dist.group.WORLD
    x = torch.full((4,), float(rank()))
    assert (functional.all_reduce(x, "sum", group) + 0).tolist() == [1] * 4
    assert functional.all_gather_tensor(x, 0, group).tolist() == [0] * 4 + [1] * 4
    assert functional.reduce_scatter_tensor(x, "avg", 0, group).tolist() == [0.5] * 2
    assert functional.all_to_all_single(x, [2, 2], [2, 2], group).tolist() == [0, 0, 1, 1]
    coalesced = functional.all_reduce_coalesced([x, x + 1], "sum", group)
    assert [each.tolist() for each in coalesced] == [[1] * 4, [3] * 4]
    many = [functional.all_reduce(x + number, "sum", group) for number in range(50)]
    assert [each.tolist() for each in many] == [[1 + 2 * number] * 4 for number in range(50)]
    y = x.clone().requires_grad_()
    functional.all_gather_tensor_autograd(y, 0, group).sum().backward()
    assert y.grad.tolist() == [2] * 4


@on_ranks(2)
def test_compiled_functions_with_collectives() -> None:
    def function(x: Any) -> Any:
        y = x * 2
        dist.all_reduce(y)
        return y + 1

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for number in (1.0, 2.0):
        assert compiled(torch.full((3,), number)).tolist() == [4 * number + 1] * 3


@on_ranks(2)
def test_the_zero_redundancy_optimizer() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = Model()
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(parallel, batch(step, rank())).backward()
        optimizer.step()
    require_like_one_process(model)
    optimizer.consolidate_state_dict(to=0)
    if rank() == 0:
        assert len(optimizer.state_dict()["state"]) == 6


@fully_sharded
@on_ranks(2)
def test_distributed_checkpoints() -> None:
    from torch.distributed import checkpoint

    folder = ronde.broadcast_object(tempfile.mkdtemp())
    mesh = init_device_mesh("cpu", (size(),))
    model = trained(fully_shard(Model(), mesh=mesh), rank())
    checkpoint.save(model.state_dict(), checkpoint_id=folder)
    other = fully_shard(Model(), mesh=mesh)
    state = other.state_dict()
    checkpoint.load(state, checkpoint_id=folder)
    other.load_state_dict(state)
    require_like_one_process(other)


@on_ranks(2)
def test_pipelines() -> None:
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

    x = batch(0)
    target = x.sum(1, keepdim=True)
    whole = nn.Sequential(copy.deepcopy(Model().first), copy.deepcopy(Model().second))
    nn.functional.mse_loss(whole(x), target).backward()
    for schedule in (ScheduleGPipe, Schedule1F1B):
        part = copy.deepcopy(whole[rank()])
        part.zero_grad()
        enters = x[:4] if rank() == 0 else whole[0](x[:4]).detach()
        stage = PipelineStage(part, rank(), size(), torch.device("cpu"), input_args=(enters,))
        losses: list[Any] = []
        pipeline = schedule(stage, n_microbatches=4, loss_fn=nn.functional.mse_loss)
        pipeline.step(*([x] if rank() == 0 else []), target=target, losses=losses)
        microbatches = 4 if is_old else 1  # whose gradients torch 2.4 adds
        torch.testing.assert_close(part.weight.grad, microbatches * whole[rank()].weight.grad)
