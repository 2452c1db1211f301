"""What asynchronous calls cost, against blocking ones: mpirun -n 2 python benchmarks/asynchronous.py

Median of 7 turns; a turn is the mean of many calls on the slowest rank. Microseconds.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import ronde
from mpi4py import MPI

TURNS, ARRAYS = 7, 200
IDLE = 10.0  # seconds


def main() -> None:
    ronde.init()
    comm = MPI.COMM_WORLD
    short = np.ones(2, np.float32)
    arrays = [np.ones(256, np.float32) for _ in range(ARRAYS)]
    whole = np.ones(256 * ARRAYS, np.float32)
    drawn = random.Random(comm.rank)
    op = ronde.Max

    def submit_all(order: Sequence[int]) -> None:
        handles = [ronde.allreduce_async_(arrays[i], op, str(i)) for i in order]
        for handle in handles:
            handle.wait()

    few, many = 20, 4000 // comm.size
    rows: list[tuple[str, Callable[[], object], int]] = [
        ("8 bytes, blocking", lambda: ronde.allreduce_(short, op), many),
        ("8 bytes, named", lambda: ronde.allreduce_async_(short, op, "w").wait(), many),
        ("8 bytes, without a name", lambda: ronde.allreduce_async_(short, op).wait(), many),
        ("200 x 1 KiB in the same order", lambda: submit_all(range(ARRAYS)), few),
        (
            "200 x 1 KiB in an order of each rank",
            lambda: submit_all(drawn.sample(range(ARRAYS), ARRAYS)),
            few,
        ),
        ("200 x 1 KiB, grouped and blocking", lambda: ronde.grouped_allreduce_(arrays, op), few),
        ("200 KiB, one array, blocking", lambda: ronde.allreduce_(whole, op), few),
    ]
    for name, call, calls in rows:
        say(f"{comm.size} ranks  {name:<38}{1e6 * measured(comm, call, calls):12.2f} us")
    comm.Barrier()
    used = processor_seconds()
    time.sleep(IDLE)
    used = comm.allreduce(processor_seconds() - used, op=MPI.MAX)
    say(f"{comm.size} ranks  processor time in {IDLE:.0f} idle seconds{1e3 * used:13.2f} ms")


def measured(comm: MPI.Comm, call: Callable[[], object], calls: int) -> float:
    seconds = []
    for _ in range(TURNS):
        comm.Barrier()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        seconds.append(comm.allreduce(time.perf_counter() - start, op=MPI.MAX) / calls)
    return median(seconds)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def say(text: str) -> None:
    if ronde.rank() == 0:
        print(text, flush=True)


if __name__ == "__main__":
    main()
