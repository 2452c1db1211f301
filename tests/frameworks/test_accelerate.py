"""Accelerate over backend="ronde"."""

from __future__ import annotations

import pytest
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("accelerate", reason="Accelerate is not installed")

import ronde.torch.distributed  # noqa: E402, F401
import torch.distributed as dist  # noqa: E402

pytestmark = pytest.mark.frameworks


def begin() -> None:
    dist.init_process_group("ronde")


def end() -> None:
    dist.destroy_process_group()


@on_ranks(2)
def test_a_prepared_model_trains_alike_on_all_ranks() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    data = torch.utils.data.TensorDataset(torch.randn(64, 8))
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.SGD(model.parameters(), lr=0.05),
        torch.utils.data.DataLoader(data, batch_size=8),
    )
    assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
    for (x,) in loader:
        optimizer.zero_grad()
        accelerator.backward((model(x) - x[:, :1]).square().mean())
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    found = accelerator.gather(next(model.parameters()).detach())
    assert torch.equal(found[0], found[1])
