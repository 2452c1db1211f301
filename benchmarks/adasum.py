"""What Adasum costs, against a sum: mpirun -n 8 python benchmarks/adasum.py

Both in place and in turns. A time is that of the slowest rank; milliseconds.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import ronde
from mpi4py import MPI

TURNS = {1: 60, 16: 15}  # by MiB


def main() -> None:
    ronde.init()
    comm = MPI.COMM_WORLD
    for mib, turns in TURNS.items():
        values = np.random.default_rng(comm.rank).standard_normal(mib << 18).astype(np.float32)
        work = np.empty_like(values)
        seconds: dict[ronde.Op, list[float]] = {ronde.Sum: [], ronde.Adasum: []}
        for _ in range(turns):
            for op, times in seconds.items():
                work[:] = values
                ronde.barrier()
                start = time.perf_counter()
                ronde.allreduce_(work, op)
                times.append(comm.allreduce(time.perf_counter() - start, op=MPI.MAX))
        if comm.rank == 0:
            added, merged = (1e3 * median(times) for times in seconds.values())
            ratio = median(b / a for a, b in zip(*seconds.values(), strict=True))
            print(
                f"{comm.size} ranks  {mib:3} MiB  Sum {added:8.3f}  Adasum {merged:8.3f}  "
                f"ratio {ratio:5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
