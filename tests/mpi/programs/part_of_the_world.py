"""`init` with a communicator of the user's, twice, and process sets from the start."""

import ronde
from mpi4py import MPI

world = MPI.COMM_WORLD
half = world.Split(world.rank % 2, -world.rank)  # in descending order of the world's ranks
ronde.init(half)
assert ronde.size() == half.size and ronde.rank() == half.rank
assert ronde.allreduce(world.rank, ronde.Sum) == sum(range(world.rank % 2, world.size, 2))
ronde.init()  # does nothing until shutdown
assert ronde.size() == half.size
ronde.shutdown()
ronde.shutdown()  # does nothing any more

pair = ronde.ProcessSet([1, 0])
ronde.init(process_sets=[pair, [world.size - 1]])
assert ronde.size() == world.size
if ronde.rank() < 2:
    assert pair.included() and ronde.allgather_object(ronde.rank(), process_set=pair) == [0, 1]
half.Free()  # Ronde has duplicated what it uses
ronde.barrier()
if world.rank == 0:
    print("any communicator will do")
