"""`torch.distributed` over Ronde and over Gloo, alternating in one run.

    ronde run -np 2 python benchmarks/torch_backend.py

A call is `all_reduce` of 8 bytes, and that of Horovod's functions, named and asynchronous (hvd). The rest are
training steps of a multilayer perceptron of 10 million parameters, by `DistributedDataParallel` and by
`fully_shard`. Median, least and greatest of all turns, of the slowest rank.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import ronde
import ronde.torch as hvd
import ronde.torch.distributed
import torch
import torch.distributed as dist
from ronde.bench import machine
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

BACKENDS = ("ronde", "gloo")
Timed = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15, help="after one that does not count (15)")
    parser.add_argument("--calls", type=int, default=2000, help="of 8 bytes in all (2000)")
    parser.add_argument("--batch", type=int, default=32, help="of a rank (32)")
    parser.add_argument("--json", action="store_true", help="one object")
    options = parser.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("ronde")
    groups = {"ronde": dist.group.WORLD, "gloo": dist.new_group(backend="gloo")}
    calls = max(1, options.calls // options.turns)
    ways: dict[str, dict[str, Timed]] = {
        "all_reduce of 8 bytes, us": {
            **{
                name: call(partial(dist.all_reduce, group=groups[name]), calls) for name in BACKENDS
            },
            "hvd": call(named, calls),
        },
        "DistributedDataParallel, ms": {
            name: step(data_parallel(groups[name]), options.batch) for name in BACKENDS
        },
        "fully_shard, ms": {name: step(sharded(groups[name]), options.batch) for name in BACKENDS},
    }
    found = {what: alternating(sides, options.turns) for what, sides in ways.items()}
    if dist.get_rank() == 0:
        report(found, options.json)
    dist.destroy_process_group()


def model() -> Any:
    torch.manual_seed(0)
    width = 1500
    return nn.Sequential(
        nn.Linear(784, width),
        nn.ReLU(),
        nn.Linear(width, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, 10),
    )


def data_parallel(group: Any) -> Any:
    return nn.parallel.DistributedDataParallel(model(), process_group=group)


def sharded(group: Any) -> Any:
    parts, mesh = model(), DeviceMesh.from_group(group, "cpu")
    for part in parts:
        if isinstance(part, nn.Linear):
            fully_shard(part, mesh=mesh)
    return fully_shard(parts, mesh=mesh)


def named(x: torch.Tensor) -> None:
    hvd.synchronize(hvd.allreduce_async_(x, op=hvd.Sum, name="x"))


def call(reduce: Callable[[torch.Tensor], Any], count: int) -> Timed:
    x = torch.zeros(2)

    def timed() -> float:
        """Microseconds, the median of a few."""
        times = []
        for _ in range(count):
            start = time.perf_counter()
            reduce(x)
            times.append(time.perf_counter() - start)
        return median(times) * 1e6

    return timed


def step(parallel: Any, batch: int) -> Timed:
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01)
    x, target = torch.randn(batch, 784), torch.randint(10, (batch,))

    def timed() -> float:
        """Milliseconds of a step."""
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(parallel(x), target).backward()
        optimizer.step()
        return (time.perf_counter() - start) * 1e3

    return timed


def alternating(sides: dict[str, Timed], turns: int) -> dict[str, list[float]]:
    """Of each side the time of each turn, of the slowest rank."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            ronde.barrier()
            slowest = ronde.allreduce(sides[name](), ronde.Max)
            if turn:
                times[name].append(slowest)
    return times


def report(found: dict[str, dict[str, list[float]]], as_json: bool) -> None:
    about = {**machine.describe(), "torch": torch.__version__, "ranks": str(dist.get_world_size())}
    if as_json:
        print(json.dumps({"about": about, "times": found}))
        return
    print(*(f"# {key}: {value}" for key, value in about.items()), sep="\n")
    print(f"{'':30}{'backend':10}{'median':>10}{'least':>10}{'greatest':>10}{'of gloo':>10}")
    for what, sides in found.items():
        for name, times in sides.items():
            ratio = median(times) / median(sides["gloo"])
            print(
                f"{what:30}{name:10}{median(times):10.2f}{min(times):10.2f}{max(times):10.2f}{ratio:10.2f}"
            )


if __name__ == "__main__":
    main()
