"""Trouble with arrays of GPUs, named by the first argument: test_device_arrays.py says what must happen."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import ronde
from ronde import device_arrays


def on_device(values: np.ndarray) -> ronde.DeviceArray:
    array = ronde.DeviceArray(values.shape, values.dtype)
    written = device_arrays.on_device(array)
    assert written is not None
    written.write(values, 1)
    return array


def host(array: ronde.DeviceArray) -> np.ndarray:
    read = device_arrays.on_device(array)
    assert read is not None
    return read.read()


case = sys.argv[1]
ronde.init()
rank = ronde.rank()
ones = np.ones(1000, np.float32)

if case == "mismatch":
    mine = on_device(ones[: 5 if rank == 1 else 6])
    for call in (ronde.allreduce_, lambda x: ronde.allreduce_async_(x).wait()):
        try:
            call(mine)
        except ronde.MismatchError as error:
            assert "shape (5,)" in str(error), error
        else:
            raise AssertionError("the ranks differ, and nobody has noticed")
    assert (host(mine) == 1).all()
    assert (host(ronde.allreduce(on_device(ones), ronde.Sum)) == ronde.size()).all()
    print("goes on")
elif case == "memory":
    # Several arrays are packed on the GPU, which takes memory.
    mine = [on_device(ones), on_device(ones)]
    if rank == 1:
        os.environ["FAKE_CUDA_MEMORY"] = "1"
    try:
        ronde.grouped_allreduce_(mine)
    except ronde.RondeError as error:
        os.write(1, f"raised: {str(error).splitlines()[0]}\n".encode())
    time.sleep(1)  # the first rank to end would end the others before they have said so
elif case == "forgotten":
    # The calls complete, though nobody waits for them; and neither they nor their arrays are touched later.
    for i in range(50):
        ronde.allreduce_async_(on_device(ones), name=str(i))
        ronde.allreduce_async(on_device(ones), name=f"new {i}")
    assert (host(ronde.allreduce_async(on_device(ones), ronde.Sum).wait()) == ronde.size()).all()
    print("complete")
elif case == "killed":
    print("under way", flush=True)
    mine = on_device(np.ones(1 << 19, np.float32))
    while True:
        ronde.allreduce_(mine)
