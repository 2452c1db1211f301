"""Lightning over Ronde, on any number of processes.

    ronde run -np 4 python examples/torch_lightning.py

A model for Lightning stays as it is. What changes is the strategy: DDP with the backend "ronde", in processes
that the launcher has started, not Lightning.

Needs Lightning, torch and scikit-learn (for the data): pip install lightning "ronde[torch,examples]".
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # every rank is one thread; see torch_train.py

import ronde
import ronde.torch.distributed
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

try:
    import lightning
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy
except ImportError:
    sys.exit("this example needs Lightning: pip install lightning")


class Launched(LightningEnvironment):
    """Says to Lightning who this process is: Ronde knows."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def world_size(self) -> int:
        return ronde.size()

    def global_rank(self) -> int:
        return ronde.rank()

    def local_rank(self) -> int:
        return ronde.local_rank()

    def node_rank(self) -> int:
        return ronde.cross_rank()

    def set_world_size(self, size: int) -> None: ...
    def set_global_rank(self, rank: int) -> None: ...


class Classifier(lightning.LightningModule):
    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        output = self.network(x)
        loss = functional.cross_entropy(output, y)
        accuracy = (output.argmax(dim=1) == y).float().mean()
        values = {"loss": loss, "accuracy": accuracy}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.learning_rate)


def load(batch_size: int) -> DataLoader[Any]:
    """1797 pictures of 8 x 8 pixels and their digits. Lightning gives each rank its share."""
    pictures, digits = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(pictures / 16.0, dtype=torch.float32), torch.tensor(digits))
    return DataLoader(data, batch_size, shuffle=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
    parser.add_argument("--learning-rate", type=float, default=0.003)
    args = parser.parse_args()
    if args.epochs < 1 or args.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    return args


def main() -> None:
    args = parse_arguments()
    dist.init_process_group("ronde")  # Lightning takes what is there
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ronde.local_size(),
        num_nodes=ronde.cross_size(),
        strategy=DDPStrategy(cluster_environment=Launched(), process_group_backend="ronde"),
        max_epochs=args.epochs,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    start = time.perf_counter()
    trainer.fit(Classifier(args.learning_rate), load(args.batch_size))
    seconds = time.perf_counter() - start
    if trainer.is_global_zero:
        loss, accuracy = (float(trainer.callback_metrics[name]) for name in ("loss", "accuracy"))
        print(f"\n{'ranks':>5} {'epochs':>6} {'loss':>8} {'accuracy':>8} {'seconds':>8}")
        print(f"{ronde.size():5} {args.epochs:6} {loss:8.4f} {accuracy:8.4f} {seconds:8.2f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
