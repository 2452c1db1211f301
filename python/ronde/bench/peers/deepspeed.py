"""DeepSpeed's allreduce in shared memory, which it compiles when it is first used (a minute or two)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from deepspeed.ops.op_builder import ShareMemCommBuilder
from mpi4py import MPI

from ..cells import Cell
from .gloo import tensor
from .peer import Buffers, Operation, Peer

__all__ = ["DeepSpeed", "connect"]

_DTYPES = ("float16", "bfloat16", "float32")


class DeepSpeed(Peer):
    def __init__(self) -> None:
        self.comm = MPI.COMM_WORLD
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.about = {"library": f"DeepSpeed {deepspeed.__version__}"}

    def gather(self, numbers: Sequence[float]) -> Any:
        return np.array(self.comm.allgather(list(numbers)), np.float64)

    def why_not(self, cell: Cell) -> str:
        if cell.collective == "memory":
            return "the bound is measured with ronde"
        if cell.collective != "allreduce" or cell.op != "sum":
            return "DeepSpeed has only sums by allreduce in shared memory"
        if cell.dtype not in _DTYPES:
            return f"DeepSpeed knows no {cell.dtype}"
        return ""

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        reduce = torch.ops.deepspeed.inference_all_reduce_
        calls = [partial(reduce, tensor(x, cell.dtype)) for x in buffers.inputs]
        yield Operation(buffers.inputs, calls, buffers.inputs)


@contextmanager
def connect() -> Iterator[DeepSpeed]:
    torch.set_num_threads(1)
    peer = DeepSpeed()
    # What DeepSpeed's own launcher sets.
    os.environ["LOCAL_SIZE"] = str(peer.size)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["MASTER_PORT"] = port = str(peer.comm.bcast(os.getpid()))  # names its memory
    if peer.rank == 0:
        ShareMemCommBuilder().load(verbose=False)
    peer.comm.Barrier()  # the others find it compiled
    ShareMemCommBuilder().load(verbose=False).initialize(peer.size, peer.rank)
    try:
        yield peer
    finally:
        peer.comm.Barrier()
        for file in Path("/dev/shm").glob(f"deepspeed_*_{port}_*"):  # which it leaves behind
            file.unlink(missing_ok=True)
