"""Ronde with arrays in the memory of GPUs, of which each rank has the one of its local rank."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import ronde
from ronde import _core, device_arrays

from ..cells import DTYPES, Cell
from .peer import Buffers, Operation
from .ronde import Ronde

__all__ = ["RondeCuda", "connect"]

_STREAM = 1  # that of a `ronde.DeviceArray`


class RondeCuda(Ronde):
    def __init__(self, gpus: list[tuple[str, int, bool]]) -> None:
        super().__init__()
        self._gpu = ronde.local_rank() % len(gpus)
        name, architecture, _ = gpus[self._gpu]
        self.about |= {
            "GPU": f"{name}, sm_{architecture}; each rank has that of its local rank modulo {len(gpus)}",
            "arrays": "in GPU memory; times include the wait for the result, "
            "and copies to the host and back where they are made",
        }

    def empty(self, count: int, cell: Cell) -> Any:
        memory = ronde.DeviceArray((count,), DTYPES[cell.dtype], self._gpu)
        return _Vector(memory, 0, count)

    def write(self, buffer: Any, values: Any) -> None:
        device_arrays.write_back(_taken(buffer), values)

    def array(self, result: Any) -> Any:
        if isinstance(result, np.ndarray):  # that of scatter is
            return result
        return _taken(result).read()

    def why_not(self, cell: Cell) -> str:
        if cell.collective == "memory":
            return "the bound is that of the host's memory"
        if cell.dtype == "bfloat16":
            return "bfloat16 in GPU memory needs tensors of torch or arrays of CuPy"
        return super().why_not(cell)

    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        for operation in super().operations(cell, buffers):
            calls = [partial(self._until_done, call) for call in operation.calls]
            yield replace(operation, calls=calls)

    def _until_done(self, call: Callable[[], Any]) -> Any:
        result = call()
        _core.cuda_synchronise(self._gpu, _STREAM)
        return result


def _taken(array: Any) -> device_arrays.OnDevice:
    taken = device_arrays.on_device(array)
    assert taken is not None
    return taken


class _Vector:
    """Elements of a `ronde.DeviceArray`, which has no slices of its own."""

    def __init__(self, memory: ronde.DeviceArray, start: int, stop: int) -> None:
        self._memory = memory  # lives as long as its parts
        whole = memory.__cuda_array_interface__
        pointer, read_only = whole["data"]
        at = pointer + start * memory.dtype.itemsize
        self.__cuda_array_interface__ = {
            **whole,
            "shape": (stop - start,),
            "data": (at, read_only),
        }

    def __getitem__(self, part: slice) -> _Vector:
        """Of a vector that is the whole memory."""
        return _Vector(self._memory, part.start, part.stop)


@contextmanager
def connect() -> Iterator[RondeCuda]:
    """Raises `UnavailableError` on rank 0 if a rank has no GPU, and ends the others quietly."""
    ronde.init()
    yield RondeCuda(_gpus())
    ronde.shutdown()


def _gpus() -> list[tuple[str, int, bool]]:
    """Those of this host."""
    gpus, why_not = [], ""
    try:
        gpus = _core.cuda_devices()
    except ronde.RondeError as error:
        why_not = str(error)
    reasons = ronde.allgather_object(why_not)
    first = next((rank for rank, why in enumerate(reasons) if why), None)
    if first is None:
        return gpus
    if ronde.rank() != 0:
        sys.exit()
    raise ronde.UnavailableError(
        f"rank {first} has no GPU: {reasons[first]}; `ronde doctor` on its host says more"
    )
