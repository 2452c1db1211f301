"""Data-parallel training of a small convolutional network with torch, on any number of processes.

    python examples/torch_train.py
    ronde run -np 4 python examples/torch_train.py

A program for Horovod would be the same, but for the import. All ranks walk through the same batches; of
each batch every rank takes its own share. `hvd.DistributedOptimizer` adds up the gradients of all ranks
during `backward()`, and `hvd.SyncBatchNorm` normalises over the whole batch. So the losses do not depend
on the number of ranks.

Needs torch, scikit-learn (for the data) and tqdm: pip install "ronde[torch,examples]".
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

# Every rank is one thread: libraries that start one thread per core, in every rank, would leave all of
# them fighting for the cores. torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ronde.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm


def load(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1797 pictures of 8 x 8 pixels and their digits: four fifths to train on, the rest to test."""
    pictures, digits = load_digits(return_X_y=True)
    x = torch.tensor(pictures / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(digits)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, test = order.tensor_split([len(y) * 4 // 5])
    return x[train], y[train], x[test], y[test]


def new_network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        hvd.SyncBatchNorm(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


def batches(rows: int, args: argparse.Namespace, epoch: int) -> Iterator[Tensor]:
    """Rows of each batch, in an order that is the same on all ranks."""
    order = torch.Generator().manual_seed(args.seed + epoch)
    yield from torch.randperm(rows, generator=order).split(args.batch_size)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, rows: Iterator[Tensor]
) -> float:
    """Returns the mean loss of all rows."""
    model.train()
    total = torch.zeros(())
    for batch in rows:
        mine = batch[hvd.rank() :: hvd.size()]
        # Divided by the whole batch and summed over ranks, gradients are the exact mean of the batch even
        # where the ranks' shares of it are not equal.
        loss = functional.cross_entropy(model(x[mine]), y[mine], reduction="sum") / len(batch)
        optimizer.zero_grad()
        loss.backward()  # the gradients of all ranks are there when it returns
        optimizer.step()
        total += loss.detach() * len(batch)
    return hvd.allreduce(total, op=hvd.Sum, name="loss").item() / len(y)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of digits recognised. Each rank looks at some of them."""
    model.eval()
    mine = slice(hvd.rank(), None, hvd.size())
    right = (model(x[mine]).argmax(dim=1) == y[mine]).sum()
    return hvd.allreduce(right, op=hvd.Sum, name="right").item() / len(y)


def check_identical(model: nn.Module) -> None:
    """Raises unless all ranks hold the same bits."""
    bits = [parameter.tolist() for parameter in model.parameters()]
    if any(other != bits for other in hvd.allgather_object(bits)):
        raise RuntimeError("the ranks' parameters differ")


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument("--batch-size", type=positive, default=128, help="of all ranks together")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--width", type=positive, default=16, help="channels of the first layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compression", metavar="NAME", help="a ronde.compression: auto, int4 ...")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    hvd.init()
    x, y, test_x, test_y = load(args.seed)
    torch.manual_seed(args.seed)
    model = new_network(args.width)
    optimizer = torch.optim.Adam(model.parameters(), args.learning_rate)
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=args.compression or hvd.Compression.none,
        op=hvd.Sum,
    )
    # The ranks start alike, whatever each has drawn or loaded.
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    start = time.perf_counter()
    is_first, in_terminal = hvd.rank() == 0, sys.stderr.isatty()
    progress = tqdm(range(args.epochs), unit="epoch", disable=not (is_first and in_terminal))
    for epoch in progress:
        loss = train_epoch(model, optimizer, x, y, batches(len(y), args, epoch))
        progress.set_postfix(loss=f"{loss:.4f}")
        if is_first and not in_terminal:
            print(f"epoch {epoch + 1} of {args.epochs}: loss {loss:.4f}", flush=True)
    seconds = time.perf_counter() - start

    correct = accuracy(model, test_x, test_y)
    check_identical(model)
    if is_first:
        rate = len(y) * args.epochs / seconds
        print(
            f"\n{'ranks':>5} {'epochs':>6} {'loss':>8} {'accuracy':>8} {'seconds':>8} {'pictures/s':>10}"
        )
        print(
            f"{hvd.size():5} {args.epochs:6} {loss:8.4f} {correct:8.4f} {seconds:8.2f} {rate:10.0f}"
        )


if __name__ == "__main__":
    main()
