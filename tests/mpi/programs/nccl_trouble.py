"""What goes wrong where NCCL connects the ranks (the fake one, by which a rank can be stopped).

nccl_trouble.py mismatch|reuse|silent
"""

from __future__ import annotations

import ctypes
import sys
import time

import numpy as np
import ronde
from ronde import device_arrays


def on_gpu(values: np.ndarray) -> ronde.DeviceArray:
    array = ronde.DeviceArray(values.shape, values.dtype, ronde.local_rank())
    device_arrays.write_back(device_arrays.on_device(array), values)
    return array


def values_of(array: ronde.DeviceArray) -> np.ndarray:
    return device_arrays.on_device(array).read()


def mismatch() -> None:
    """One rank has its array on the host, in calls of every kind."""
    x = np.full(3, 1 + ronde.rank(), np.float32)
    mine = x if ronde.rank() == 1 else on_gpu(x)
    calls = [
        lambda: ronde.allreduce(mine, ronde.Sum),
        lambda: ronde.allreduce_async(mine, ronde.Sum, name="x").wait(),
        lambda: ronde.grouped_allreduce([mine, mine], ronde.Sum),
        lambda: ronde.grouped_allreduce([on_gpu(x), mine], ronde.Sum),
        lambda: ronde.reduce(mine, 0, ronde.Sum),
        lambda: ronde.reducescatter(mine, ronde.Sum),
        lambda: ronde.broadcast(mine, 0),
        lambda: ronde.allgather(mine),
        lambda: ronde.allgather_async(mine, name="x").wait(),
        lambda: ronde.gather(mine),
        lambda: ronde.alltoall(mine, splits=[1, 2]),
        lambda: ronde.allgather(mine[:0] if ronde.rank() == 1 else on_gpu(x[:0])),
    ]
    for call in calls:
        try:
            call()
        except ronde.MismatchError as error:
            assert "on GPUs" in str(error), error
        else:
            raise AssertionError("no rank noticed")
        total = values_of(ronde.allreduce(on_gpu(x), ronde.Sum))
        assert list(total) == [3.0] * 3, total
    if ronde.rank() == 0:
        print("noticed")


def reuse() -> None:
    """Inputs get other values when the calls have ended, of which the handles are kept."""
    ones, others = np.ones(200_000, np.float32), np.full(200_000, 100, np.float32)
    for _ in range(20):
        inputs = [on_gpu(ones) for _ in range(4)]
        handles = [
            ronde.reduce_async(inputs[0], 0, ronde.Sum),
            ronde.reducescatter_async(inputs[1], ronde.Sum),
            ronde.allreduce_async(inputs[2], ronde.Sum),
            ronde.broadcast_async(inputs[3], 1),
            ronde.allgather_async(inputs[0]),
            ronde.alltoall_async(inputs[1]),
        ]
        gathered = ronde.gather(inputs[2])
        results = [handle.wait() for handle in handles]
        for each in inputs:
            device_arrays.write_back(device_arrays.on_device(each), others)
        results.append(gathered)
        for result, expected in zip(results, (2, 2, 2, 1, 1, 1, 1), strict=True):
            assert result is None or (values_of(result) == expected).all(), expected
    if ronde.rank() == 0:
        print("as it was")


def silent() -> None:
    """A rank whose GPU never comes to what it has agreed to, and which then calls nothing more."""
    x = np.full(3, 1 + ronde.rank(), np.float32)
    ronde.allreduce(on_gpu(x), ronde.Sum)
    if ronde.rank() == 0:  # which has made the id
        ctypes.CDLL("libnccl.so.2").fake_nccl_kill(1)
    ronde.barrier()
    pending = on_gpu(x)
    ronde.allreduce_(pending, ronde.Sum)
    if ronde.rank() == 1:
        time.sleep(60)
    try:
        ronde.allreduce(on_gpu(x), ronde.Sum)
    except ronde.StalledError:
        print("stalled", values_of(pending))  # which waits for nothing any more


ronde.init()
{"mismatch": mismatch, "reuse": reuse, "silent": silent}[sys.argv[1]]()
