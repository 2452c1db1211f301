"""Collectives with the arguments of CuPy's, over MPI."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from mpi4py import MPI

from . import Device, get_current_stream

available = True

NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN = range(4)
NCCL_INT8, NCCL_UINT8, NCCL_INT32, NCCL_UINT32, NCCL_INT64, NCCL_UINT64 = range(6)
NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = range(6, 9)

_OPS = [np.add, np.multiply, np.maximum, np.minimum]
_TYPES = ["i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def get_version() -> int:
    return 22809


def get_unique_id() -> tuple[int, ...]:
    return tuple(range(-64, 64))


class NcclCommunicator:
    def __init__(self, ndev: int, commId: tuple[int, ...], rank: int) -> None:
        self._comm = MPI.COMM_WORLD.Dup()
        assert (ndev, rank) == (self._comm.size, self._comm.rank)
        assert commId == get_unique_id()
        assert Device.used == rank % 2, "each rank must have a GPU of its own"

    def destroy(self) -> None:
        self._comm.Free()

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        def run() -> None:
            memory(recvbuf, count, datatype)[:] = self._sum(sendbuf, count, datatype, op)

        enqueue(stream, run)

    def reduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int
    ) -> None:
        def run() -> None:
            total = self._sum(sendbuf, count, datatype, op)
            if self._comm.rank == root:
                memory(recvbuf, count, datatype)[:] = total

        enqueue(stream, run)

    def reduceScatter(
        self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int
    ) -> None:
        def run() -> None:
            total = self._sum(sendbuf, recvcount * self._comm.size, datatype, op)
            part = total.reshape(self._comm.size, recvcount)[self._comm.rank]
            memory(recvbuf, recvcount, datatype)[:] = part

        enqueue(stream, run)

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        def run() -> None:
            everybody = self._comm.allgather(memory(sendbuff, count, datatype))
            memory(recvbuff, count, datatype)[:] = everybody[root]

        enqueue(stream, run)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        def run() -> None:
            everybody = self._comm.allgather(memory(sendbuf, count, datatype))
            memory(recvbuf, count * len(everybody), datatype)[:] = np.concatenate(everybody)

        enqueue(stream, run)

    def _sum(self, sendbuf: int, count: int, datatype: int, op: int) -> np.ndarray:
        everybody = self._comm.allgather(memory(sendbuf, count, datatype))
        return _OPS[op].reduce(everybody, dtype=_TYPES[datatype])


def enqueue(stream: int, run: Any) -> None:
    assert stream == get_current_stream().ptr
    get_current_stream().queue.append(run)


def memory(pointer: int, count: int, datatype: int) -> np.ndarray:
    dtype = np.dtype(_TYPES[datatype])
    data = (ctypes.c_byte * (count * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(data, dtype)
