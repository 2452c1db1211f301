"""`DistributedDataParallel` over Ronde, on any number of processes.

    ronde run -np 4 python examples/torch_ddp.py
    ronde run -np 4 python examples/torch_ddp.py --compression int4

For programs that stay with `torch.distributed`: to import `ronde.torch.distributed` makes the backend
"ronde", which needs no MASTER_ADDR and no port. `ronde.torch.comm_hook` compresses what DDP sends between
machines. The rest is as with any other backend.

Needs torch, scikit-learn (for the data) and tqdm: pip install "ronde[torch,examples]".
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # every rank is one thread; see torch_train.py

import ronde.torch
import ronde.torch.distributed
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def new_network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def load() -> TensorDataset:
    """1797 pictures of 8 x 8 pixels and their digits."""
    pictures, digits = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(pictures / 16.0, dtype=torch.float32), torch.tensor(digits))


def mean(value: float) -> float:
    """Over the ranks."""
    summed = torch.tensor([value])
    dist.all_reduce(summed, op=dist.ReduceOp.AVG)
    return summed.item()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--compression", metavar="NAME", help="a ronde.compression: auto, int4 ...")
    args = parser.parse_args()
    if args.epochs < 1 or args.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    return args


def main() -> None:
    args = parse_arguments()
    dist.init_process_group("ronde")
    data = load()
    sampler = DistributedSampler(data)  # a share of the data for each rank
    loader = DataLoader(data, args.batch_size, sampler=sampler)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(new_network())
    if args.compression:
        state = ronde.torch.CommHookState(
            args.compression, named_parameters=model.module.named_parameters()
        )
        model.register_comm_hook(state, ronde.torch.comm_hook)
    optimizer = torch.optim.SGD(model.parameters(), args.learning_rate, momentum=0.9)

    start = time.perf_counter()
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        total = right = 0.0
        for x, y in loader:
            output = model(x)
            loss = functional.cross_entropy(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / len(loader)
            right += (output.argmax(dim=1) == y).sum().item() / len(sampler)
        loss_of_all, accuracy = mean(total), mean(right)
        if dist.get_rank() == 0:
            print(f"epoch {epoch + 1} of {args.epochs}: loss {loss_of_all:.4f}", flush=True)
    seconds = time.perf_counter() - start

    if dist.get_rank() == 0:
        size = dist.get_world_size()
        rate = len(data) * args.epochs / seconds
        print(
            f"\n{'ranks':>5} {'epochs':>6} {'loss':>8} {'accuracy':>8} {'seconds':>8} {'pictures/s':>10}"
        )
        print(
            f"{size:5} {args.epochs:6} {loss_of_all:8.4f} {accuracy:8.4f} {seconds:8.2f} {rate:10.0f}"
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
