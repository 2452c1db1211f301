"""A job that is observed; the first argument says how. See test_observing.py for what must be seen."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import urllib.request

import numpy as np
import ronde

case = sys.argv[1]
ronde.init()
rank, size = ronde.rank(), ronde.size()
ones = np.ones(1000)


def say(text: str) -> None:
    """In one piece, as other ranks write too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def started() -> None:
    """Says who this is, once all ranks are here."""
    ronde.barrier()
    say(f"rank {rank} is process {os.getpid()}")


def open_files() -> list[str]:
    folder = "/proc/self/fd"
    paths = [f"{folder}/{name}" for name in os.listdir(folder)]
    return [os.readlink(path) for path in paths if os.path.islink(path)]


def work() -> None:
    for _ in range(3):
        handles = [ronde.allreduce_async(ones, name=f"a{i}") for i in range(4)]
        ronde.allreduce(np.ones(50_000), name="b")
        for handle in handles:
            handle.wait()


if case == "late":  # rank 1 never comes, and a call is pending on the others
    ronde.allreduce(ones, name="before")
    if rank != 1:
        ronde.allreduce_async(ones, name="pending")
    started()
    if rank == 1:
        time.sleep(60)
    ronde.allreduce(ones, name="late")
elif case == "raises":
    started()
    if rank == 1:
        time.sleep(1)
        raise ValueError("something of the user's")
    ronde.allreduce(ones, name="late")
elif case == "counts":
    before = ronde.counters()
    for _ in range(5):
        ronde.allreduce(np.ones(1000, np.float32))
    handles = [ronde.allreduce_async(np.ones(100), name=f"{i}") for i in range(3)]
    for handle in handles:
        handle.wait()
    ronde.barrier()
    if rank == 1:
        time.sleep(0.3)
    ronde.barrier()
    with contextlib.suppress(ronde.MismatchError):
        ronde.allreduce(np.ones(3 + rank))
    after = ronde.counters()
    more = {name: after[name] - before[name] for name in after}
    say(f"rank {rank}: {more}")
elif case == "metrics":
    ronde.allreduce(ones)
    port = int(os.environ["RONDE_METRICS_PORT"]) + ronde.local_rank()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    value = f'ronde_calls_total{{rank="{rank}"}} {ronde.counters()["calls"]}'
    assert value in text.splitlines(), text
    ronde.shutdown()
    say("served")
elif case == "timeline":
    work()
    os.fork() or os._exit(0)  # a child adds nothing
    if rank == 1:
        time.sleep(0.1)
    ronde.barrier(name="last")
elif case == "parts":
    for file in ("first.json", "second.json"):
        ronde.start_timeline(file)
        work()
        try:
            ronde.start_timeline("third.json")
        except ronde.RondeError as error:
            assert file in str(error)
        ronde.stop_timeline()
    try:
        ronde.stop_timeline()
    except ronde.RondeError as error:
        say(f"none: {error}")
    try:
        ronde.start_timeline("/no/such/folder/x.json" if rank == 1 else "x.json")
    except ronde.MismatchError:
        say("differs")
    try:
        ronde.start_timeline("/no/such/folder/x.json")
    except ronde.RondeError as error:
        say(f"refused: {error}")
    assert not [path for path in open_files() if ".json" in path]
elif case == "killed":
    for _ in range(50):
        work()
        time.sleep(0.01)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ronde.barrier()
elif case == "restarts":
    for _ in range(3):
        ronde.allreduce(ones)
        ronde.shutdown()
        ronde.init()
    records = [path for path in open_files() if "ronde-flight-record" in path]
    assert len(records) == 1, records
    say("one record")
else:
    raise SystemExit(f"no such case: {case}")
