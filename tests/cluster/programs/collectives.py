"""All collectives on several hosts, and who is whose neighbour. The argument: ranks to a host."""

import socket
import sys

import numpy as np
import ronde

per_host = int(sys.argv[1])
ronde.init()
rank, size = ronde.rank(), ronde.size()

names = ronde.allgather_object(socket.gethostname())
assert len(set(names)) == -(-size // per_host), names
assert all(names[other] == names[other // per_host * per_host] for other in range(size)), names
assert ronde.local_rank() == rank % per_host
assert ronde.local_size() == min(per_host, size - rank // per_host * per_host)
assert ronde.cross_rank() == rank // per_host

total = size * (size + 1) // 2
for count in (
    0,
    1,
    60,
    1000,
    100_003,
):  # with phase 0, and by schedules of one and of many segments
    mine = np.full(count, rank + 1, np.float32)
    assert (ronde.allreduce(mine, op=ronde.Sum) == total).all()
    assert (ronde.allreduce(mine, op=ronde.Max) == size).all()
    every = np.repeat(np.arange(1, size + 1, dtype=np.float32), count)
    assert (ronde.allgather(mine) == every).all()
    assert (ronde.broadcast(mine, size - 1) == size).all()
    reduced = ronde.reduce(mine, root_rank=1, op=ronde.Sum)
    assert rank != 1 or (reduced == total).all()
    gathered = ronde.gather(mine, root_rank=1)
    assert rank != 1 or (gathered == every).all()
    chunks = np.repeat(np.arange(size, dtype=np.float32), count)
    assert (ronde.reducescatter(chunks, op=ronde.Sum) == rank * size).all()
    assert (ronde.scatter(chunks if rank == 0 else None, root_rank=0) == rank).all()
    got = ronde.alltoall(chunks + 100 * rank)
    assert (got == rank + 100 * np.repeat(np.arange(size), count)).all()

normal = np.random.default_rng(rank).normal(size=50_000)
for array in (normal[:10], normal):
    bits = ronde.allgather_object(ronde.allreduce(array).tobytes())
    assert len(set(bits)) == 1, "the ranks got different bits"

# A process set on one host shares memory, one across hosts sends messages.
for members in ([0, 1], [0, size - 1]):
    some = ronde.add_process_set(members)
    if rank in members:
        assert (ronde.allreduce(np.ones(70_000), op=ronde.Sum, process_set=some) == 2).all()
ronde.barrier()
if rank == 0:
    print(f"all collectives are right on {len(set(names))} hosts")
