"""A quick proof that Ronde works under this MPI: `mpirun -n 4 python tests/mpi/smoke.py`.

Rank 0 prints a line that begins with OK. Anything wrong is an assertion, which ends the job.
"""

from __future__ import annotations

import numpy as np
import ronde

COUNTS = (0, 1, 1000, 1 << 20)


def check_reductions(rank: int, size: int) -> None:
    for count in COUNTS:
        mine = np.arange(count, dtype=np.float32) % 1024 + rank
        total = size * (np.arange(count) % 1024) + size * (size - 1) // 2
        assert np.array_equal(ronde.allreduce(mine, ronde.Sum), total)
        root = size - 1
        reduced = ronde.reduce(mine, root, ronde.Sum)
        assert np.array_equal(reduced, total) if rank == root else reduced is None
        part = ronde.allgather(ronde.reducescatter(mine, ronde.Sum))
        assert np.array_equal(part, total)
    group = [np.full(3, rank, np.int32), np.full(5, rank, np.float64)]
    for array in ronde.grouped_allreduce(group, ronde.Max):
        assert (array == size - 1).all()


def check_movements(rank: int, size: int) -> None:
    for count in COUNTS:
        data = np.arange(count, dtype=np.int64)
        assert np.array_equal(ronde.broadcast(data if rank == 0 else 0 * data), data)
        # Rank r contributes r rows.
        gathered = ronde.allgather(np.full((rank, count), rank, np.int16))
        assert np.array_equal(
            gathered[:, :1].ravel(), np.repeat(range(size), range(size))[: gathered[:, :1].size]
        )
        scattered = ronde.scatter(np.arange(size) if rank == 0 else None)
        assert scattered.tolist() == [rank]
        sent = np.repeat(np.arange(size, dtype=np.uint8), count)
        assert (ronde.alltoall(sent) == rank).all()
    assert ronde.allgather_object({"rank": rank}) == [{"rank": r} for r in range(size)]
    ronde.barrier()


def check_mismatch(rank: int, size: int) -> None:
    """All ranks raise, and all can go on."""
    try:
        ronde.allreduce(np.zeros(3 if rank == size - 1 else 2))
    except ronde.MismatchError as error:
        assert "allreduce" in str(error)
        raised = 1
    else:
        raised = 0
    assert ronde.allreduce(raised, ronde.Sum) == (size if size > 1 else 0)


def main() -> None:
    ronde.init()
    rank, size = ronde.rank(), ronde.size()
    check_reductions(rank, size)
    check_movements(rank, size)
    check_mismatch(rank, size)
    if rank == 0:
        from mpi4py import MPI

        name, version = MPI.get_vendor()
        levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
        level = levels[
            [getattr(MPI, f"THREAD_{each}") for each in levels].index(MPI.Query_thread())
        ]
        number = ".".join(map(str, version))
        handle = MPI._sizeof(MPI.COMM_WORLD)
        print(f"OK|{name}|{number}|{handle}|{level}|{size} ranks", flush=True)
    ronde.shutdown()


if __name__ == "__main__":
    main()
