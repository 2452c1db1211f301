"""Says which files of shared memory MPI has made for this job, starts Ronde, and ends as the first argument
says. See test_segments.py."""

from __future__ import annotations

import os
import signal
import sys
import time

import ronde
from mpi4py import MPI
from ronde import _core

MPI.COMM_WORLD.Barrier()
for path in _core.segment_names(os.getpid()):
    print(f"has the segment {path}", flush=True)
MPI.COMM_WORLD.Barrier()

ronde.init()
assert ronde.allreduce(1, ronde.Sum) == ronde.size()

end = sys.argv[1]
if end == "works":
    print("under way", flush=True)
    while True:
        ronde.barrier()
if end != "ends":
    if ronde.rank() != ronde.size() - 1:
        time.sleep(60)  # until the last rank has ended the job
    if end == "aborts":
        MPI.COMM_WORLD.Abort(3)
    if end == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("something of the user's")
