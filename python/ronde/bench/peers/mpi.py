"""The collectives of an MPI library, through mpi4py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI

from ..cells import Cell
from .peer import Buffers, Operation, Peer

__all__ = ["Mpi", "connect"]

_TYPES = {
    "bool": MPI.C_BOOL,
    **{
        f"{sign}int{n}": getattr(MPI, f"{sign.upper()}INT{n}_T")
        for sign in ("", "u")
        for n in (8, 16, 32, 64)
    },
    "float32": MPI.FLOAT,
    "float64": MPI.DOUBLE,
}
_OPS = {"sum": MPI.SUM, "min": MPI.MIN, "max": MPI.MAX, "product": MPI.PROD}
_BOOL_OPS = {"sum": MPI.LOR, "min": MPI.LAND, "max": MPI.LOR, "product": MPI.LAND}


class Mpi(Peer):
    def __init__(self) -> None:
        self._comm = MPI.COMM_WORLD
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        vendor, version = MPI.get_vendor()
        self.about = {"library": f"{vendor} {'.'.join(map(str, version))}"}

    def gather(self, numbers: Sequence[float]) -> Any:
        mine = np.array(numbers, np.float64)
        everybody = np.empty((self.size, mine.size))
        self._comm.Allgather(mine, everybody)
        return everybody

    def why_not(self, cell: Cell) -> str:
        if cell.collective == "memory":
            return "the bound is measured with ronde"
        if cell.kind.reduces and cell.dtype not in _TYPES:
            return f"MPI does not reduce {cell.dtype}"
        if cell.kind.reduces and cell.op == "average":
            return "MPI has no average"
        return ""

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        # What is only moved may be of any type of that length.
        kind = _TYPES.get(cell.dtype, MPI.UINT16_T)
        op = (_BOOL_OPS if cell.dtype == "bool" else _OPS).get(cell.op, MPI.OP_NULL)
        inputs = [[x, kind] for x in buffers.inputs]
        if cell.collective == "barrier":
            yield Operation(buffers.inputs, [partial(self._comm.Barrier)])
            return
        if cell.collective == "broadcast":
            calls = [partial(self._comm.Bcast, x, cell.root) for x in inputs]
            yield Operation(buffers.inputs, calls, buffers.inputs)
            return
        if cell.collective == "allreduce" and cell.in_place:
            calls = [partial(self._comm.Allreduce, MPI.IN_PLACE, x, op) for x in inputs]
            yield Operation(buffers.inputs, calls, buffers.inputs)
        arrays = buffers.outputs()
        outputs = [[y, kind] for y in arrays]
        pairs = zip(inputs, outputs, strict=True)
        yield Operation(buffers.inputs, [self._call(cell, x, y, op) for x, y in pairs], arrays)

    def _call(self, cell: Cell, x: Any, y: Any, op: Any) -> partial[Any]:
        comm, root = self._comm, cell.root
        at_root = self.rank == root
        if cell.collective == "allreduce":
            return partial(comm.Allreduce, x, y, op)
        if cell.collective == "reducescatter":
            return partial(comm.Reduce_scatter_block, x, y, op)
        if cell.collective == "reduce":
            return partial(comm.Reduce, x, y if at_root else None, op, root)
        if cell.collective == "gather":
            return partial(comm.Gather, x, y if at_root else None, root)
        if cell.collective == "scatter":
            return partial(comm.Scatter, x if at_root else None, y, root)
        if cell.collective == "allgather":
            return partial(comm.Allgather, x, y)
        return partial(comm.Alltoall, x, y)


@contextmanager
def connect() -> Iterator[Mpi]:
    yield Mpi()
