"""A job that is observed; the first argument says how. See test_observing.py for what must be seen."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
import unittest.mock
import urllib.request
from pathlib import Path

import numpy as np
import ronde
from ronde import _core, _files, _flight, _timeline

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


def calls_began(record: _core.FlightReader, name: str) -> float:
    found = [call for lane in record.lanes() for call in lane.calls if call.what.endswith(name)]
    return found[0].began


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
    # Each is pending somewhere, and none everywhere.
    early = [ronde.allreduce_async(np.ones(100), name=f"{rank}")]
    while not early[0].done() and ronde.counters()["retries"] == before["retries"]:
        pass
    ronde.barrier()
    for handle in [*early, ronde.allreduce_async(np.ones(100), name=f"{1 - rank}")]:
        handle.wait()
    ronde.allreduce(np.ones(100), op=ronde.Adasum)
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
    ronde.barrier(name="β")
elif case == "unjoined":
    log = logging.getLogger("ronde")
    log.addHandler(logging.StreamHandler(sys.stdout))
    for error in (MemoryError(), UnicodeError("not text")):
        ronde.start_timeline("failed.json")
        work()
        with unittest.mock.patch.object(_files, "replace", side_effect=error):
            try:
                ronde.stop_timeline()
            except ronde.RondeError as refused:
                say(f"rank {rank}: {refused}")
    ronde.start_timeline("large.json")
    work()
    with unittest.mock.patch.object(_timeline, "_MOST", 1000):
        ronde.stop_timeline()
    assert not [path for path in open_files() if ".json" in path]
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
elif case == "fails_and_restarts":  # by RONDE_STALL_TIMEOUT
    metrics = Path(os.environ["RONDE_METRICS_FILE"]).with_suffix(f".rank{rank}.prom")
    if rank == 1:
        time.sleep(4)
    with contextlib.suppress(ronde.RondeError):
        while True:
            ronde.allreduce(ones)
    ronde.shutdown()
    (failed,) = re.findall(r"failed_calls_total\{.*\} (\d)", metrics.read_text())
    assert not [path for path in open_files() if ".json" in path]
    ronde.init()  # where the metrics port must be free
    (record,) = _flight.find([os.getpid()]).values()
    assert record.phase == "", record.phase
    ronde.allreduce(ones, name="again")
    assert "again" in "".join(call.what for lane in record.lanes() for call in lane.calls)
    say(f"rank {rank} had failed {failed} times")
elif case == "many":  # more pending calls than there are records; what hangs is the last
    if rank == 0:
        few = [ronde.allreduce_async(ones[:1], name=f"few{i}") for i in range(300)]
        hangs = ronde.allreduce_async(ones[:1], name="hangs")
        (record,) = _flight.find([os.getpid()]).values()
        calls = [call.what for lane in record.lanes() for call in lane.calls]
        assert "allreduce/few0" in calls and "allreduce/hangs" not in calls
        ronde.barrier()
    else:
        ronde.barrier()
        few = [ronde.allreduce_async(ones[:1], name=f"few{i}") for i in range(300)]
        other = ronde.allreduce_async(ones[:1], name="other")
    for handle in few:
        handle.wait()
    if rank == 0:
        pending: list[_core.Recorded] = []
        while not pending and not hangs.done():
            pending = [each for _, each in _flight.seen(record).under_way(asynchronous=True)]
        (hung,) = pending
        assert hung.what == "allreduce/hangs" and hung.submitted < calls_began(record, "few200")
    ronde.barrier()  # in which rank 1 negotiates
    handle = ronde.allreduce_async(ones[:1], name="other" if rank == 0 else "hangs")
    for each in (handle, hangs if rank == 0 else other):
        each.wait()
    say("seen")
else:
    raise SystemExit(f"no such case: {case}")
