"""Lightning over backend="ronde"."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")
lightning = pytest.importorskip("lightning", reason="Lightning is not installed")

import ronde.torch.distributed  # noqa: E402
import torch.distributed as dist  # noqa: E402
from lightning.pytorch.plugins.environments import ClusterEnvironment  # noqa: E402
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402

pytestmark = pytest.mark.frameworks


class Ranks(ClusterEnvironment):
    """Those of Ronde."""

    creates_processes_externally = True
    main_address = "127.0.0.1"
    main_port = 0  # found below

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind((self.main_address, 0))
            self.main_port = ronde.broadcast_object(free.getsockname()[1])

    @staticmethod
    def detect() -> bool:
        return True

    def world_size(self) -> int:
        return ronde.size()

    def set_world_size(self, size: int) -> None: ...

    def global_rank(self) -> int:
        return ronde.rank()

    def set_global_rank(self, rank: int) -> None: ...

    def local_rank(self) -> int:
        return ronde.local_rank()

    def node_rank(self) -> int:
        return ronde.cross_rank()


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch: Any, _: int) -> Any:
        [x] = batch
        loss = (self.layer(x) - x[:, :1]).square().mean()
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@on_ranks(2)
def test_a_trainer_trains_alike_on_all_ranks() -> None:
    data = torch.utils.data.TensorDataset(torch.randn(64, 8))
    model = Model()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ronde.local_size(),
        strategy=DDPStrategy(process_group_backend="ronde", cluster_environment=Ranks()),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8))
    assert dist.get_backend() == "ronde"
    found = ronde.allgather(model.layer.weight.detach())
    assert torch.equal(found[0], found[1])
    losses = ronde.allgather_object(trainer.callback_metrics["loss"].item())
    assert losses[0] == losses[1]
