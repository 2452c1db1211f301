"""Compressed training with arrays on GPUs, on several machines of two ranks each: the bits of the same with
arrays of NumPy.

    machines.py gpus|mixed|pairs

`gpus`: all ranks have a GPU of their own. `mixed`: those of every second machine have arrays of NumPy.
`pairs`: of each machine the first rank has its arrays on a GPU, the second one arrays of NumPy. In the last
two some machines have no NCCL, or it would connect all ranks, and they could not differ.
"""

from __future__ import annotations

import copy
import socket
import sys
from typing import Any

import numpy as np
import ronde
from mpi4py import MPI
from ronde import _nccl, device_arrays

KIND = sys.argv[1]
RANK = MPI.COMM_WORLD.Get_rank()
MACHINE = RANK // 2
socket.gethostname = lambda: f"machine{MACHINE}"  # by which ranks find their neighbours
if KIND != "gpus" and MACHINE % 2:
    _nccl.found = lambda setting: _nccl.NOTHING


def is_on_gpu() -> bool:
    if KIND == "pairs":
        return ronde.local_rank() == 0
    return KIND == "gpus" or MACHINE % 2 == 0


def on_gpu(values: np.ndarray) -> ronde.DeviceArray:
    array = ronde.DeviceArray(values.shape, values.dtype, RANK)
    device_arrays.write_back(device_arrays.on_device(array), values)
    return array


def host(x: Any) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x
    read = device_arrays.on_device(x)
    assert read is not None
    return read.read()


class Descent:
    def update_params(self, params: list[Any], grads: list[Any]) -> None:
        self.seen = [host(each).copy() for each in grads]


def training(compression: Any, tolerance: float = 0) -> None:
    plain = ronde.DistributedOptimizer(Descent(), compression=copy.deepcopy(compression), name="w")
    other = ronde.DistributedOptimizer(Descent(), compression=copy.deepcopy(compression), name="w")
    for step in range(3):
        random = np.random.default_rng(10 * step + RANK)
        grads = [random.standard_normal(shape, np.float32) for shape in ((67, 45), (3, 7))]
        plain.update_params([], [each.copy() for each in grads])
        other.update_params([], [on_gpu(each) if is_on_gpu() else each for each in grads])
        for one, two in zip(plain.seen, other.seen, strict=True):
            np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


def asynchronous() -> None:
    """On the lanes of asynchronous calls too."""
    compression = ronde.compression.ErrorFeedback("int8")
    x = np.random.default_rng(RANK).standard_normal(1500, np.float32)
    expected = ronde.grouped_allreduce(
        [x], name="host", compression=ronde.compression.ErrorFeedback("int8")
    )
    mine = on_gpu(x) if is_on_gpu() else x.copy()
    names = [f"array {i}" for i in range(5)]
    handles = [
        ronde.grouped_allreduce_async([mine], name=name, compression=compression) for name in names
    ]
    for handle in handles:
        np.testing.assert_array_equal(host(handle.wait()[0]), expected[0])


ronde.init()
assert ronde.local_size() == 2
for compression in ("bf16", "int4", "topk"):
    training(compression)
before = ronde.counters()["bytes_over_nccl"]
# Where NCCL connects all, it adds up factors in an order of its own.
training(ronde.compression.powersgd(2), 1e-4 if KIND == "gpus" else 0)
training(ronde.compression.shared_scale(8))
assert (ronde.counters()["bytes_over_nccl"] > before) == (KIND == "gpus")
asynchronous()
counters = ronde.counters()
assert counters["bytes_compressed"] > 0
# Of pairs a machine adds up in its memory.
assert (counters["bytes_over_nccl"] > 0) == (KIND != "pairs" and is_on_gpu()), counters
if ronde.rank() == 0:
    print("as with NumPy arrays", KIND)
