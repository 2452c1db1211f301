"""A wrong argument is refused in words, on this rank, before anything is sent."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# One process, as MPI can be started only once in each.
PROGRAM = """
import re
import numpy as np
import ronde

x = np.ones(4)


def refused(error, words, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as raised:
        assert type(raised) is error, (call, raised)
        assert re.search(words, str(raised)), (call, raised)
    else:
        raise AssertionError((call, args, kwargs))


refused(TypeError, "communicator of mpi4py", ronde.init, 5)
refused(TypeError, "communicator of mpi4py", ronde.init, [0, 1])
from mpi4py import MPI
refused(ValueError, "COMM_NULL", ronde.init, MPI.COMM_NULL)
ronde.init()

refused(TypeError, "op must be one of", ronde.allreduce, x, op="sum")
refused(TypeError, "name must be a text", ronde.allreduce, x, name=5)
refused(TypeError, "name must be a text", ronde.barrier, 0)
refused(TypeError, "prescale_factor must be a number", ronde.allreduce, x, prescale_factor="a")
refused(ValueError, "too large", ronde.allreduce, x, postscale_factor=10**400)
refused(TypeError, "need a floating type", ronde.allreduce, np.ones(3, int), ronde.Sum, prescale_factor=2)
refused(TypeError, "process_set must be", ronde.allreduce, x, process_set=None)
refused(TypeError, "process_set must be", ronde.gather, x, process_set=[0])
for call in (ronde.reduce, ronde.gather, ronde.broadcast, ronde.scatter, ronde.broadcast_object):
    refused(ValueError, "none of the ranks 0 to 0", call, x, 1)
    refused(ValueError, "none of the ranks 0 to 0", call, x, -1)
    refused(ValueError, "none of the ranks 0 to 0", call, x, 2**40)
    refused(TypeError, "whole number", call, x, "0")
    refused(TypeError, "whole number", call, x, 0.0)
    refused(TypeError, "whole number", call, x, None)
    call(x, np.int64(0))
refused(TypeError, "at least one dimension", ronde.reducescatter, np.float64(1))
refused(TypeError, "at least one dimension", ronde.alltoall, 3.0)
refused(TypeError, "at least one dimension", ronde.scatter, np.array(1.0))
refused(TypeError, "must pass an array", ronde.scatter)
refused(TypeError, "whole numbers", ronde.alltoall, x, [4.7])
refused(TypeError, "whole numbers", ronde.alltoall, x, "4")
refused(ValueError, "2 entries for 1 ranks", ronde.alltoall, x, [2, 2])
refused(ValueError, "do not add up to the 4 rows", ronde.alltoall, x, [3])
refused(ValueError, "do not add up to the 4 rows", ronde.scatter, x, splits=[-4])
assert ronde.alltoall(x, np.array([4]))[1] == [4]
refused(TypeError, "masked", ronde.allreduce, np.ma.masked_array(x, x > 0))
refused(ValueError, "read only", ronde.allreduce_, np.broadcast_to(1.0, 3))
refused(TypeError, "list of ranks", ronde.ProcessSet, 5)
refused(TypeError, "whole numbers", ronde.ProcessSet, [0.5])
refused(TypeError, "whole numbers", ronde.ProcessSet, ["0"])
refused(ValueError, "from 0 on", ronde.ProcessSet, [-1])
refused(ValueError, "twice", ronde.ProcessSet, [0, 0])
refused(ValueError, "at least one", ronde.ProcessSet, [])
assert ronde.ProcessSet(np.arange(2)).ranks == [0, 1]
refused(ValueError, "no rank 3", ronde.add_process_set, [0, 3])
refused(ValueError, "already", ronde.add_process_set, [0])
refused(TypeError, "ronde.ProcessSet", ronde.remove_process_set, 5)
refused(ValueError, "cannot be removed", ronde.remove_process_set, ronde.global_process_set)
refused(ronde.RondeError, "not in use", ronde.ProcessSet([0]).size)
refused(ronde.RondeError, "not in use", ronde.barrier, process_set=ronde.ProcessSet([0]))

# All of it has left Ronde as it was.
unaligned = np.frombuffer(bytearray(4 * 8 + 1), np.uint8)[1:].view(np.float64)
unaligned[:] = 3
assert not unaligned.flags.aligned
ronde.allreduce_(unaligned)
assert (ronde.allreduce(unaligned) == 3).all()
matrix = ronde.allreduce(np.matrix([[1.0, 2.0]]))
assert type(matrix) is np.ndarray
print("all refused")
"""


def test_wrong_arguments_are_refused_in_words() -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "all refused" in result.stdout
