"""Rank 1 does not do its part. Rank 0 prints the error that it gets. See test_backend_chaos.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import ronde
import ronde.torch.distributed
import torch
import torch.distributed as dist
from torch import nn


def show(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except RuntimeError as error:
        print(f"{what}: {type(error).__name__}: {error}", flush=True)


def backward(parallel: Any) -> None:
    parallel(torch.ones(1, 4)).sum().backward()


def raises() -> None:
    parallel = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    backward(parallel)
    if dist.get_rank() == 1:
        next(parallel.parameters()).register_hook(lambda _: 1 / 0)
        backward(parallel)
    show("backward", lambda: backward(parallel))


def leaves() -> None:
    parallel = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    if dist.get_rank() == 1:
        sys.exit()
    show("backward", lambda: backward(parallel))


def sleeps() -> None:
    if dist.get_rank() == 1:
        time.sleep(120)
    show("recv", lambda: dist.recv(torch.zeros(1), 1))
    show("new_group", lambda: dist.new_group([0, 1]))
    show("all_reduce", lambda: dist.all_reduce(torch.zeros(1)))


if __name__ == "__main__":
    dist.init_process_group("ronde")
    ronde.barrier()
    globals()[sys.argv[1]]()
