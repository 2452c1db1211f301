"""Horovod, with tensors of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import horovod
import horovod.torch as hvd
import torch

from ..cells import FLOATING, Cell
from .gloo import tensor
from .peer import Buffers, Operation, Peer

__all__ = ["Horovod", "connect"]

_COLLECTIVES = ("allreduce", "broadcast", "allgather", "reducescatter", "alltoall", "barrier")
_REDUCED = ("float16", "float32", "float64", "int32", "int64")
_MOVED = (*_REDUCED, "int8", "uint8", "int16")
_OPS = {
    "sum": hvd.Sum,
    "average": hvd.Average,
    "min": hvd.Min,
    "max": hvd.Max,
    "product": hvd.Product,
}


class Horovod(Peer):
    def __init__(self) -> None:
        self.rank, self.size = hvd.rank(), hvd.size()
        self.about = {"library": f"Horovod {horovod.__version__}"}

    def gather(self, numbers: Sequence[float]) -> Any:
        mine = torch.tensor([list(numbers)], dtype=torch.float64)
        return hvd.allgather(mine, name="times").numpy()

    def array(self, result: Any) -> Any:
        return result.numpy() if isinstance(result, torch.Tensor) else result

    def why_not(self, cell: Cell) -> str:
        if cell.collective == "memory":
            return "the bound is measured with ronde"
        if cell.collective not in _COLLECTIVES:
            return f"Horovod has no {cell.collective}"
        if cell.dtype not in (_REDUCED if cell.kind.reduces else _MOVED):
            return f"Horovod's {cell.collective} knows no {cell.dtype}"
        if cell.kind.reduces and cell.op == "average" and cell.dtype not in FLOATING:
            return f"the average of {cell.dtype} would have to be rounded"
        if cell.collective == "reducescatter" and cell.op not in ("sum", "average"):
            return f"Horovod's reducescatter has no {cell.op}"
        return ""

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        # A call of the same name, shape and type is replayed from Horovod's cache.
        name = f"{cell.collective} {cell.size}"
        calls = [self._call(cell, tensor(x, cell.dtype), name) for x in buffers.inputs]
        in_place = cell.collective in ("allreduce", "broadcast")
        yield Operation(buffers.inputs, calls, buffers.inputs if in_place else None)

    def _call(self, cell: Cell, x: Any, name: str) -> partial[Any]:
        if cell.collective == "allreduce":
            return partial(hvd.allreduce_, x, name=name, op=_OPS[cell.op])
        if cell.collective == "broadcast":
            return partial(hvd.broadcast_, x, cell.root, name)
        if cell.collective == "allgather":
            return partial(hvd.allgather, x, name)
        if cell.collective == "reducescatter":
            return partial(hvd.reducescatter, x, name=name, op=_OPS[cell.op])
        if cell.collective == "alltoall":
            return partial(hvd.alltoall, x, name=name)
        return partial(hvd.barrier)


@contextmanager
def connect() -> Iterator[Horovod]:
    torch.set_num_threads(1)
    hvd.init()
    yield Horovod()
    hvd.shutdown()
