"""A training step of torch on several ranks: alone, with Ronde's DistributedOptimizer, with DDP over Gloo.

    ronde run -np 2 python benchmarks/torch_step.py --model mlp --turns 15

`--sides alone,ronde,horovod` adds Horovod's optimizer, where it is installed for the MPI of this launcher. It
runs on its turns only, as its thread would take time from the others.

On each turn every side makes a few steps after one that does not count, in another order each time, each with
a model of its own. The time of a step is that of the slowest rank. Printed are median, least and greatest
of the turns, and the ratio to the side without communication, which is the median of the ratios of the turns.

mlp: a perceptron of 9.4 million parameters, whose first matrix has two thirds of them and gets its gradient
last. transformer: 8 layers, 10 million parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import ronde
import ronde.torch as hvd
import torch
from torch import nn
from training.trainers import start_gloo

Step = Callable[[], None]


def mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    layers: list[nn.Module] = []
    sizes = 3072, 2048, 1024, 1024
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    return model, torch.randn(96, sizes[0]), torch.randint(10, (96,))


class Transformer(nn.Module):
    def __init__(self, words: int = 256, width: int = 320, layers: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(
            width, 8, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, words)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(words))).flatten(0, 1)


def transformer() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    words = torch.randint(256, (4, 65))
    return Transformer(), words[:, :-1], words[:, 1:].flatten()


MODELS = {"mlp": mlp, "transformer": transformer}


def side(kind: str, model: str, compression: Any) -> Step:
    torch.manual_seed(1)
    net, x, y = MODELS[model]()
    optimizer: Any = torch.optim.SGD(net.parameters(), lr=1e-3)
    if kind == "ronde":
        optimizer = hvd.DistributedOptimizer(
            optimizer, net.named_parameters(), compression=compression
        )
    elif kind == "gloo":
        net = nn.parallel.DistributedDataParallel(net)
    elif kind == "horovod":
        import horovod.torch as horovod

        optimizer = horovod.DistributedOptimizer(optimizer, net.named_parameters())

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


@contextmanager
def at_work(kind: str) -> Iterator[None]:
    if kind != "horovod":
        yield
        return
    import horovod.torch as horovod

    horovod.init()
    try:
        yield
    finally:
        horovod.shutdown()


def seconds(step: Step, count: int) -> float:
    ronde.barrier()
    since = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - since) / count


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    steps = {}
    for kind in options.sides:
        with at_work(kind):
            steps[kind] = side(kind, options.model, options.compression)
            seconds(steps[kind], 2)
    times = {kind: [] for kind in steps}
    order = list(steps)
    for _ in range(options.turns):
        order = order[1:] + order[:1]
        for kind in order:
            with at_work(kind):
                seconds(steps[kind], 1)
                own = seconds(steps[kind], options.steps)
            times[kind].append(float(ronde.allreduce(np.float64(own), ronde.Max)))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="of each side in a turn (3)")
    parser.add_argument("--compression", help="of Ronde, as int4; exact unless given")
    parser.add_argument(
        "--sides", type=lambda text: text.split(","), default=["alone", "ronde", "gloo"]
    )
    parser.add_argument("--json", help="a file for the times")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ronde.init()
    if "gloo" in options.sides:
        start_gloo()
    times = measure(options)
    ronde.barrier()
    if ronde.rank() != 0:
        return
    for kind, each in times.items():
        base = times.get("alone", each)
        ratio = median(a / b for a, b in zip(each, base, strict=True))
        low, high = 1e3 * min(each), 1e3 * max(each)
        print(
            f"{kind:8s} {1e3 * median(each):7.1f} ms ({low:.1f} to {high:.1f}), "
            f"{ratio:.3f} of alone"
        )
    if options.json:
        about = {"model": options.model, "ranks": ronde.size(), "torch": torch.__version__}
        Path(options.json).write_text(json.dumps({**about, "seconds": times}))


if __name__ == "__main__":
    main()
