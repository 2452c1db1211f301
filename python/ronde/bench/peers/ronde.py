"""Ronde itself, through its public functions, and the bound that memory sets."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import ronde
from ronde import _core, _mpi, context

from .. import compressors
from ..cells import DTYPES, FLOATING, Cell
from .peer import Buffers, Operation, Peer

__all__ = ["Ronde", "connect"]

_COMPRESSED = {("float32", "sum"), ("float32", "average")}
_OPS = {name.lower(): op for name, op in ronde.Op.__members__.items()}


class Ronde(Peer):
    def __init__(self) -> None:
        self.rank, self.size = ronde.rank(), ronde.size()
        world = context.world()
        hosts = len({home.host for home in world.homes})
        # What exchanges messages: machines, or ranks that share no memory with others.
        self._parties = self.size // ronde.global_process_set._member().local_size
        transport = "shared memory" if world.shares_memory else "MPI messages"
        if world.shares_memory and hosts > 1:
            transport += ", MPI messages between hosts"
        self.about = {
            "hosts": f"{hosts}",
            "transport": transport if self.size > 1 else "none",
            "MPI": _mpi.name(world.job.MPI),
            "wire": self._wire(),
        }

    def _wire(self) -> str:
        """What compression is for."""
        if self._parties == 1:
            return (
                "none, so nothing is compressed: one machine reduces exactly in shared memory; "
                "use hosts, or RONDE_SHARED_MEMORY=0, which takes each rank for a machine"
            )
        what = "machines" if self._parties < self.size else "ranks"
        return f"between {self._parties} {what}"

    def gather(self, numbers: Sequence[float]) -> Any:
        return ronde.allgather(np.array([numbers], np.float64))

    def empty(self, count: int, cell: Cell) -> Any:
        if cell.buffers == "shared":
            return ronde.empty((count,), DTYPES[cell.dtype])
        return super().empty(count, cell)

    def why_not(self, cell: Cell) -> str:
        if cell.dtype == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
            return "bfloat16 arrays of NumPy need ml_dtypes: pip install ml_dtypes"
        if cell.kind.reduces and cell.op == "average" and cell.dtype not in FLOATING:
            return f"the average of {cell.dtype} would have to be rounded"
        if cell.compression != "none" and (cell.dtype, cell.op) not in _COMPRESSED:
            return "compression needs float32, and op sum or average"
        return ""

    def bytes_sent(self) -> int:
        return ronde.global_process_set._member().bytes_sent

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        if cell.collective == "memory":
            floats = [_as_floats(x) for x in buffers.inputs]
            for scale in _SCALES:
                yield Operation(buffers.inputs, [partial(scale, x) for x in floats])
            return
        inputs = [_typed(x, cell.dtype) for x in buffers.inputs]
        in_place = cell.in_place and cell.collective in ("allreduce", "broadcast")
        if cell.compression != "none":
            yield Operation(buffers.inputs, self._compressed(cell, inputs))
            return
        calls = [self._call(cell, x, in_place) for x in inputs]
        yield Operation(buffers.inputs, calls, buffers.inputs if in_place else None)

    def _compressed(self, cell: Cell, inputs: Sequence[Any]) -> list[partial[Any]]:
        """As in training: with feedback, unless results are right on average."""
        compression: Any = compressors.make(cell.compression)
        if not compression.unbiased:
            compression = ronde.compression.ErrorFeedback(compression)
        return [
            partial(
                ronde.allreduce, x, _OPS[cell.op], f"gradient {number}", compression=compression
            )
            for number, x in enumerate(inputs)
        ]

    def _call(self, cell: Cell, x: Any, in_place: bool) -> partial[Any]:
        root, op = cell.root, _OPS[cell.op]
        if cell.collective == "allreduce":
            function = ronde.allreduce_ if in_place else ronde.allreduce
            return partial(function, x, op)
        if cell.collective == "broadcast":
            return partial(ronde.broadcast_ if in_place else ronde.broadcast, x, root)
        if cell.collective == "allgather":
            return partial(ronde.allgather, x)
        if cell.collective == "reducescatter":
            return partial(ronde.reducescatter, x, op)
        if cell.collective == "alltoall":
            return partial(ronde.alltoall, x)
        if cell.collective == "reduce":
            return partial(ronde.reduce, x, root, op)
        if cell.collective == "gather":
            return partial(ronde.gather, x, root)
        if cell.collective == "scatter":
            return partial(ronde.scatter, x if self.rank == root else None, root)
        return partial(ronde.barrier)


def _typed(x: Any, dtype: str) -> Any:
    if dtype != "bfloat16":
        return x
    import ml_dtypes

    return x.view(ml_dtypes.bfloat16)


def _as_floats(x: Any) -> Any:
    """The bytes of a vector, as far as they make whole floats."""
    return x.view(np.uint8)[: x.nbytes // 4 * 4].view(np.float32)


def _scale_by_numpy(x: Any) -> None:
    np.multiply(x, np.float32(0.5), out=x)


def _scale(x: Any, streaming: bool) -> None:
    op, dtype = _core.ReduceOp.sum, _core.DType.float32
    _core.reduce_many(op, dtype, [x], [x], prescale=0.5, streaming=streaming)


# Whichever is fastest is the bound.
_SCALES = (_scale_by_numpy, partial(_scale, streaming=False), partial(_scale, streaming=True))


@contextmanager
def connect() -> Iterator[Ronde]:
    ronde.init()
    yield Ronde()
    ronde.shutdown()
