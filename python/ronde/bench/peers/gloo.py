"""Gloo, as torch.distributed uses it. Its ranks are plain processes: no MPI is needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from ..cells import Cell
from .peer import Buffers, Operation, Peer

__all__ = ["STORE", "Gloo", "connect"]

STORE = "GLOO_STORE"  # variable: a file where the ranks find each other

_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32", "int64")
_OPS = {
    "sum": dist.ReduceOp.SUM,
    "min": dist.ReduceOp.MIN,
    "max": dist.ReduceOp.MAX,
    "product": dist.ReduceOp.PRODUCT,
}


class Gloo(Peer):
    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.about = {"library": f"Gloo of torch {torch.__version__}"}

    def gather(self, numbers: Sequence[float]) -> Any:
        mine = torch.tensor(numbers, dtype=torch.float64)
        everybody = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everybody, mine)
        return torch.stack(everybody).numpy()

    def why_not(self, cell: Cell) -> str:
        if cell.collective == "memory":
            return "the bound is measured with ronde"
        if cell.dtype not in _DTYPES:
            return f"Gloo knows no {cell.dtype}"
        if cell.kind.reduces and cell.op not in _OPS:
            return f"Gloo has no {cell.op}"
        return ""

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        inputs = [tensor(x, cell.dtype) for x in buffers.inputs]
        if cell.collective == "barrier":
            yield Operation(buffers.inputs, [dist.barrier])
        elif cell.collective in ("allreduce", "reduce", "broadcast"):  # there is only "in place"
            calls = [self._call_in_place(cell, x) for x in inputs]
            yield Operation(buffers.inputs, calls, buffers.inputs)
        else:
            arrays = buffers.outputs()
            outputs = [tensor(y, cell.dtype) for y in arrays]
            pairs = zip(inputs, outputs, strict=True)
            yield Operation(buffers.inputs, [self._call(cell, x, y) for x, y in pairs], arrays)

    def _call_in_place(self, cell: Cell, x: Any) -> partial[Any]:
        if cell.collective == "allreduce":
            return partial(dist.all_reduce, x, _OPS[cell.op])
        if cell.collective == "reduce":
            return partial(dist.reduce, x, cell.root, _OPS[cell.op])
        return partial(dist.broadcast, x, cell.root)

    def _call(self, cell: Cell, x: Any, y: Any) -> partial[Any]:
        root = cell.root
        at_root = self.rank == root
        if cell.collective == "allgather":
            return partial(dist.all_gather_into_tensor, y, x)
        if cell.collective == "reducescatter":
            return partial(dist.reduce_scatter_tensor, y, x, _OPS[cell.op])
        if cell.collective == "alltoall":
            return partial(dist.all_to_all_single, y, x)
        if cell.collective == "gather":
            return partial(dist.gather, x, list(y.chunk(self.size)) if at_root else None, root)
        return partial(dist.scatter, y, list(x.chunk(self.size)) if at_root else None, root)


def tensor(x: Any, dtype: str) -> Any:
    """The memory of an array as a tensor."""
    if dtype == "bfloat16":
        return torch.from_numpy(x.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(x)


@contextmanager
def connect() -> Iterator[Gloo]:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{os.environ[STORE]}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    yield Gloo()
    dist.destroy_process_group()
