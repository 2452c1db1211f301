"""NCCL, as CuPy calls it, with arrays of CuPy: each rank has the GPU of its local rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import cupy
import numpy as np
from cupy.cuda import nccl
from mpi4py import MPI

from ..cells import DTYPES, Cell
from .peer import Buffers, Operation, Peer

__all__ = ["Nccl", "connect"]

if not nccl.available:
    raise ImportError("CuPy finds no NCCL: install nvidia-nccl-cu12 or nvidia-nccl-cu13")

_COLLECTIVES = ("allreduce", "broadcast", "allgather", "reducescatter", "reduce")
_TYPES = {
    "int8": nccl.NCCL_INT8,
    "uint8": nccl.NCCL_UINT8,
    "int32": nccl.NCCL_INT32,
    "uint32": nccl.NCCL_UINT32,
    "int64": nccl.NCCL_INT64,
    "uint64": nccl.NCCL_UINT64,
    "float16": nccl.NCCL_FLOAT16,
    "float32": nccl.NCCL_FLOAT32,
    "float64": nccl.NCCL_FLOAT64,
}
_OPS = {
    "sum": nccl.NCCL_SUM,
    "min": nccl.NCCL_MIN,
    "max": nccl.NCCL_MAX,
    "product": nccl.NCCL_PROD,
}


class Nccl(Peer):
    """MPI starts the ranks, and compares their times."""

    def __init__(self) -> None:
        self._mpi = MPI.COMM_WORLD
        self.rank, self.size = self._mpi.Get_rank(), self._mpi.Get_size()
        local_rank = self._mpi.Split_type(MPI.COMM_TYPE_SHARED).Get_rank()
        cupy.cuda.Device(local_rank % cupy.cuda.runtime.getDeviceCount()).use()
        self._stream = cupy.cuda.get_current_stream()
        first = nccl.get_unique_id() if self.rank == 0 else None
        self.comm = nccl.NcclCommunicator(self.size, self._mpi.bcast(first), self.rank)
        self.about = {"library": f"NCCL {nccl.get_version()}, by CuPy {cupy.__version__}"}

    def gather(self, numbers: Sequence[float]) -> Any:
        return np.array(self._mpi.allgather(list(numbers)), np.float64)

    def empty(self, count: int, cell: Cell) -> Any:
        return cupy.empty(count, DTYPES[cell.dtype])

    def write(self, buffer: Any, values: Any) -> None:
        buffer.set(values)

    def array(self, result: Any) -> Any:
        return result.get()

    def why_not(self, cell: Cell) -> str:
        if cell.collective not in _COLLECTIVES:
            return f"NCCL has no {cell.collective} by CuPy"
        if cell.dtype not in _TYPES:
            return f"NCCL knows no {cell.dtype} by CuPy"
        if cell.kind.reduces and cell.op not in _OPS:
            return f"NCCL has no {cell.op} by CuPy"
        return ""

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        inputs = buffers.inputs
        if cell.in_place and cell.collective in ("allreduce", "broadcast"):
            yield self._operation(cell, inputs, inputs)
        if cell.collective != "broadcast" or not cell.in_place:
            yield self._operation(cell, inputs, buffers.outputs())

    def _operation(self, cell: Cell, inputs: list[Any], outputs: list[Any]) -> Operation:
        pairs = zip(inputs, outputs, strict=True)
        calls = [partial(self._until_done, self._call(cell, x, y)) for x, y in pairs]
        return Operation(inputs, calls, outputs)

    def _call(self, cell: Cell, x: Any, y: Any) -> partial[Any]:
        comm, stream = self.comm, self._stream.ptr
        count, kind = cell.count(self.size), _TYPES[cell.dtype]
        vectors = (x.data.ptr, y.data.ptr, count, kind)
        if cell.collective == "allreduce":
            return partial(comm.allReduce, *vectors, _OPS[cell.op], stream)
        if cell.collective == "reduce":
            return partial(comm.reduce, *vectors, _OPS[cell.op], cell.root, stream)
        if cell.collective == "reducescatter":
            return partial(comm.reduceScatter, *vectors, _OPS[cell.op], stream)
        if cell.collective == "broadcast":
            return partial(comm.broadcast, *vectors, cell.root, stream)
        return partial(comm.allGather, *vectors, stream)

    def _until_done(self, call: Callable[[], Any]) -> None:
        call()
        self._stream.synchronize()


@contextmanager
def connect() -> Iterator[Nccl]:
    peer = Nccl()
    yield peer
    peer.comm.destroy()
