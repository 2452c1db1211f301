"""Arrays over 2 GiB: the lengths that do not fit MPI's counts."""

import numpy as np
import ronde

ronde.init()
rank, size = ronde.rank(), ronde.size()
count = (2 << 30) + 12345
x = np.full(count, rank + 1, np.uint8)
x[-1] = 10 * (rank + 1)
ronde.allreduce_(x, ronde.Sum)
total = size * (size + 1) // 2
assert (x[:: 1 << 20] == total).all() and x[-2] == total and x[-1] == 10 * total
x[:] = rank
ronde.broadcast_(x, 1)
assert (x[:: 1 << 20] == 1).all() and x[-1] == 1
if rank == 0:
    print("large arrays are right")
