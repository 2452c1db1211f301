"""One kind of trouble, named by the first argument. See test_contract.py for what must happen."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np


def own_number() -> int:
    """The rank, before MPI runs."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK") or 0)


case = sys.argv[1]
if case == "settings" and own_number() == 1:
    os.environ["RONDE_SEGMENT_BYTES"] = "4096"

import ronde  # noqa: E402


def later(seconds: float, number: int) -> None:
    threading.Timer(seconds, lambda: os.kill(os.getpid(), number)).start()



if case == "never_inits":
    import mpi4py.MPI  # noqa: F401  (starts MPI)
if case.startswith("never") and own_number() == 1:
    time.sleep(60)
ronde.init()
rank, size = ronde.rank(), ronde.size()
with open("/proc/self/maps") as maps:
    for path in {line.split()[-1] for line in maps if "/dev/shm/" in line and "(del" not in line}:
        print(f"rank {rank} has the segment {path}", flush=True)
ones = np.ones(1000)

if case == "kind":
    if rank == 1:
        ronde.allgather(ones)
    ronde.allreduce(ones)
elif case == "dtype":
    ronde.allreduce(ones.astype(np.float32) if rank == 1 else ones)
elif case == "sizes":
    ronde.allreduce(np.ones((5 if rank == 1 else 10) << 17))
elif case == "op":
    ronde.allreduce(ones, ronde.Max if rank == 1 else ronde.Sum)
elif case == "root":
    ronde.broadcast(ones, 1 if rank == 1 else 0)
elif case == "names":
    for name in ("b", "a") if rank == 1 else ("a", "b"):
        ronde.allreduce(ones, name=name)
elif case == "group":
    ronde.grouped_allreduce([ones, ones[: 5 if rank == 1 else 6]])
elif case == "members":
    ronde.add_process_set([1, 2] if rank == 1 else [0, 1])
elif case == "leaves":
    if rank == 1:
        sys.exit(0)
    ronde.allreduce(ones)
elif case == "raises":
    if rank == 1:
        raise ValueError("something of the user's")
    ronde.allreduce(ones)
elif case == "caught":
    try:
        ronde.allreduce(ones[: 5 if rank == 1 else 6])
    except ronde.MismatchError:
        pass
    assert ronde.allreduce(1, ronde.Sum) == size
    print("goes on", flush=True)
elif case == "late":
    if rank == 1:
        time.sleep(60)
    ronde.allreduce(ones, name="gradient")
elif case == "crossing":
    first, second = ronde.add_process_set([0, 1]), ronde.add_process_set([1, 0, 2])
    if rank == 0:
        ronde.barrier(process_set=first)
    elif rank == 1:
        ronde.barrier(process_set=second)
elif case == "recovers":
    try:
        if rank == 1:
            time.sleep(3)
        ronde.allreduce(ones)
    except ronde.StalledError:
        pass
    try:
        ronde.allreduce(ones)
    except ronde.RondeError as error:
        assert "cannot be used any more" in str(error)
    ronde.shutdown()
    ronde.init()
    assert ronde.allreduce(1, ronde.Sum) == size
    print("goes on", flush=True)
elif case == "interrupted":
    if rank == 1:
        later(0.5, signal.SIGINT)
    if rank == 0:
        time.sleep(30)
    ronde.allreduce(ones, name="gradient")
elif case == "killed":
    print("under way", flush=True)
    x = np.ones(1 << 21)
    while True:
        ronde.allreduce_(x)
elif case == "threads_run":
    # The GIL is free while a collective waits.
    ticks = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    if rank == 0:
        time.sleep(1.0)
    start = time.monotonic()
    ronde.barrier()
    stop.set()
    thread.join()
    if rank == 1:
        assert sum(t > start for t in ticks) > 10
        print("threads run", flush=True)
elif case == "forked":
    child = os.fork()
    if child == 0:
        try:
            ronde.allreduce(ones)
        except ronde.RondeError as error:
            print(f"in the child: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    ronde.barrier()
else:
    raise SystemExit(f"no such trouble: {case}")
