"""Training in which rank 1 does something that it should not, in the third step."""

from __future__ import annotations

import sys
import time
from typing import Any

import ronde
import ronde.torch as hvd
import torch
from torch import nn


class Trouble(torch.autograd.Function):
    """In backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kind: str) -> torch.Tensor:
        ctx.kind = kind
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.kind == "raises":
            raise ArithmeticError("this rank has a bug")
        if ctx.kind == "exits":
            sys.exit(3)
        if ctx.kind == "sleeps":
            time.sleep(20)
        return grads[0], None


def main(kind: str) -> None:
    torch.set_num_threads(1)
    ronde.init()
    late = ronde.rank() == 1
    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    first, second, third = model
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), 0.1), model.named_parameters()
    )
    since = time.monotonic()
    try:
        for step in range(4):
            since = time.monotonic()
            y = third(torch.randn(2, 4))
            if late and step == 2:
                y = Trouble.apply(y, kind)
            y = first(y)
            loss = second(y).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    except ronde.RondeError as error:
        took = time.monotonic() - since
        print(
            f"rank {ronde.rank()} got {type(error).__name__} after {took:.1f} s: {error}",
            flush=True,
        )
        raise


if __name__ == "__main__":
    main(sys.argv[1])
