"""Many buckets between machines of several ranks: one after the other, and under way together.

    python benchmarks/cluster run --hosts 2 --per-host 2 -np 4 -- .venv/bin/python benchmarks/overlap.py

On each turn the same buckets are reduced by blocking calls and by asynchronous ones, and the two parts of
a call are timed by themselves: in the memory of the machine (an allreduce of its ranks) and on the network
(an allreduce of each rank's slice with the ranks of the same local rank). Where both overlap, the longer
part is the bound. Median (least to greatest) over the turns, of the slowest rank.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("RONDE_FUSION_BYTES", "1M")  # each bucket by itself

import numpy as np
import ronde
from mpi4py import MPI


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--buckets", type=int, default=64, help="how many (64)")
    parser.add_argument("--bytes", type=int, default=1 << 20, help="of a bucket (1 MiB)")
    parser.add_argument("--turns", type=int, default=7, help="after one that does not count (7)")
    options = parser.parse_args()

    ronde.init()
    here = ronde.rank() // ronde.local_size()
    machine = [
        ronde.add_process_set(range(host * ronde.local_size(), (host + 1) * ronde.local_size()))
        for host in range(ronde.size() // ronde.local_size())
    ][here]
    across = [
        ronde.add_process_set(range(local, ronde.size(), ronde.local_size()))
        for local in range(ronde.local_size())
    ][ronde.local_rank()]
    elements = options.bytes // 4
    buckets = [np.ones(elements, np.float32) for _ in range(options.buckets)]
    slices = [each[: elements // ronde.local_size()] for each in buckets]
    op = ronde.Max

    def blocking() -> None:
        for bucket in buckets:
            ronde.allreduce_(bucket, op)

    def asynchronous() -> None:
        handles = [ronde.allreduce_async_(each, op, str(i)) for i, each in enumerate(buckets)]
        for handle in handles:
            handle.wait()

    def in_machine() -> None:
        for bucket in buckets:
            ronde.allreduce_(bucket, op, process_set=machine)

    def on_network() -> None:
        for part in slices:
            ronde.allreduce_(part, op, process_set=across)

    ways: dict[str, Callable[[], None]] = {
        "blocking": blocking,
        "asynchronous": asynchronous,
        "in the machine": in_machine,
        "on the network": on_network,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.turns + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            seconds = timed(ways[name])
            if turn:
                times[name].append(seconds)
    if ronde.rank() != 0:
        return
    for name, seconds in times.items():
        print(f"{name:<16}{shown([1e3 * each for each in seconds], 1)} ms")
    pairs = list(zip(*times.values(), strict=True))
    print(f"{'gain':<16}{shown([b / a for b, a, *_ in pairs], 2)} times")
    print(f"{'of the bound':<16}{shown([a / max(m, n) for _, a, m, n in pairs], 2)} times")


def timed(work: Callable[[], None]) -> float:
    MPI.COMM_WORLD.Barrier()
    start = time.perf_counter()
    work()
    return MPI.COMM_WORLD.allreduce(time.perf_counter() - start, op=MPI.MAX)


def shown(values: list[float], digits: int) -> str:
    low, middle, high = (
        f"{each:.{digits}f}" for each in (min(values), median(values), max(values))
    )
    return f"{middle:>10} ({low} to {high})"


if __name__ == "__main__":
    main()
