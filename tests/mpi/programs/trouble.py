"""One kind of trouble, named by the first argument. See test_contract.py for what must happen."""

from __future__ import annotations

import contextlib
import multiprocessing
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

if case == "same_settings":
    os.environ["RONDE_SEGMENT_BYTES"] = "512K" if own_number() == 1 else "524288"

import ronde  # noqa: E402


def later(seconds: float, number: int) -> None:
    threading.Timer(seconds, lambda: os.kill(os.getpid(), number)).start()


if case == "never_inits":
    import mpi4py.MPI  # noqa: F401  (starts MPI)
if case.startswith("never") and own_number() == 1:
    time.sleep(60)
ronde.init()
rank, size = ronde.rank(), ronde.size()
ones = np.ones(1000)

if case == "same_settings":
    ronde.barrier()
elif case == "all_raise":
    raise NotImplementedError  # without text
elif case == "kind":
    if rank == 1:
        ronde.allgather(ones)
    ronde.allreduce(ones)
elif case == "sizes":
    ronde.allreduce(np.ones((5 if rank == 1 else 10) << 17))
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
    with contextlib.suppress(ronde.MismatchError):
        ronde.allreduce(ones[: 5 if rank == 1 else 6])
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
    elif second.included():  # a rank that left would be the first thing that the others report
        ronde.barrier(process_set=second)
elif case == "recovers":
    with contextlib.suppress(ronde.StalledError):
        if rank == 1:
            time.sleep(3)
        ronde.allreduce(ones)
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
elif case == "called_by_a_handler":
    # A collective inside a collective of the same thread and set could never end.
    some = ronde.add_process_set([0, 1])
    attempts = [lambda: ronde.barrier("from a handler"), lambda: ronde.remove_process_set(some)]
    refused = []

    def call_again(*_: object) -> None:
        try:
            attempts.pop(0)()
        except ronde.RondeError as error:
            refused.append(str(error))

    signal.signal(signal.SIGALRM, call_again)
    if rank == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    if rank == 1:
        time.sleep(2)
    ronde.allreduce(ones)
    assert rank != 0 or "barrier 'from a handler' was called" in refused[0]
    if rank == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    if rank == 1:
        time.sleep(2)
    if rank != 2:
        ronde.allreduce(ones, process_set=some)
    assert rank != 0 or "cannot remove the process set" in refused[1]
elif case in ("removes_under_calls", "shuts_down_under_calls"):
    some = ronde.add_process_set(range(size - 1))
    ends = []

    def call_on() -> None:
        try:
            while True:
                assert ronde.allreduce(ones, ronde.Sum, process_set=some)[-1] == size - 1
        except ronde.RondeError as error:
            ends.append(error)

    thread = threading.Thread(target=call_on if rank < size - 1 else print)
    thread.start()
    time.sleep(0.3)
    if case == "shuts_down_under_calls":
        ronde.shutdown()
    else:
        ronde.remove_process_set(some)
        assert ronde.allreduce(1, ronde.Sum) == size
    thread.join()
    assert len(ends) == (rank < size - 1)
elif case == "daemons":
    # Threads in the middle of calls when the program ends, whether others are there or not.
    some = ronde.add_process_set(range(size - 1))

    def call_forever(process_set: ronde.ProcessSet) -> None:
        with contextlib.suppress(ronde.RondeError):
            while True:
                ronde.allreduce(ones, process_set=process_set)

    for process_set in (ronde.global_process_set, some):
        if process_set.included():
            threading.Thread(target=call_forever, args=(process_set,), daemon=True).start()
    time.sleep(0.3)
elif case == "stuck_at_the_end":
    ronde.barrier()
    if rank == 1:
        time.sleep(4)
elif case == "leaves_a_set":
    some = ronde.add_process_set([0, 1])
    if rank == 0:
        try:
            ronde.barrier(process_set=some)
        except ronde.RankFailedError as error:
            print(f"raised: {error}", flush=True)
elif case == "outlives":
    # Rank 1 leaves, and the others go on without it.
    for _ in range(3 if rank != 1 else 0):
        with contextlib.suppress(ronde.MismatchError):
            ronde.allreduce(ones)
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
elif case == "recovers_and_shuts_down":
    with contextlib.suppress(ronde.StalledError):
        if rank == 1:
            time.sleep(3)
        ronde.allreduce(ones)
    ronde.shutdown()
    ronde.init()
    ronde.barrier()
    ronde.shutdown()
    print("ended", flush=True)
elif case == "shuts_down_early":
    with contextlib.suppress(ronde.MismatchError):
        if rank == 1:
            ronde.shutdown()
        ronde.allreduce(ones)
    assert ronde.allreduce(1, ronde.Sum) == size  # the end was refused, everything goes on
    print("goes on", flush=True)
elif case == "closed_output":
    if rank == 1:
        sys.stdout.close()
        raise ValueError("cannot be shown")
    ronde.allreduce(ones)
elif case == "long_groups":
    shapes = [(5 + i,) for i in range(200)]
    if rank == 1:
        shapes[150] = (7, 7, 7)
    ronde.grouped_allreduce([np.ones(shape) for shape in shapes], name="grads")
elif case == "suspended":
    # Longer than the timeout, all of them at once, as a scheduler of jobs does.
    if rank == 0:
        print("under way", flush=True)
    for _ in range(40):
        ronde.allreduce(ones)
        time.sleep(0.02)
    ronde.barrier()
    print("goes on", flush=True)
elif case == "two_threads":
    # A failure that one thread receives ends the wait of the other, in another process set.
    first, second = ronde.ProcessSet(range(size)), ronde.ProcessSet(range(size - 1))
    ronde.add_process_set(second)
    reported = []

    def wait(process_set: ronde.ProcessSet) -> None:
        try:
            ronde.barrier(process_set=process_set)
        except ronde.RankFailedError:
            reported.append(process_set)

    if rank == size - 1:
        time.sleep(0.5)
        raise ValueError("something of the user's")
    if rank == 0:
        threads = [
            threading.Thread(target=wait, args=(s,)) for s in (ronde.global_process_set, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"reported by {len(reported)} threads", flush=True)
    time.sleep(3)
elif case == "no_memory":
    if rank == 1:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    ronde.allgather(np.ones(1 << 27, np.uint8))
    ronde.allgather(np.ones(1 << 29, np.uint8))
elif case == "forked":
    child = os.fork()
    if child == 0:
        try:
            ronde.allreduce(ones)
        except ronde.RondeError as error:
            print(f"in the child: {error}", flush=True)
        try:
            ronde.init()
        except ronde.RondeError:
            print("and init is refused", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    ronde.barrier()
elif case == "forked_and_ended":
    # As programs end, rather than by os._exit.
    for how, status in (("exit", 7), ("exception", 1), ("end", 0)):
        child = os.fork()
        if child == 0:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            if how == "exit":
                sys.exit(status)
            if how == "exception":
                raise ValueError("in a forked child")
            break
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    else:
        pool = multiprocessing.get_context("fork").Pool(1)
        assert pool.apply(abs, (-3,)) == 3
        pool.close()
        pool.join()
        assert ronde.allreduce(1, ronde.Sum) == size
        print("goes on", flush=True)
else:
    raise SystemExit(f"no such trouble: {case}")
