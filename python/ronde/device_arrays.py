"""Arrays in the memory of GPUs, as collectives take them and give them back.

What a collective moves is a copy in memory of the host. The copies run in the order of the caller's stream,
so the caller need not synchronise: the values are those that the stream has written, and what is enqueued
next sees the result.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core

__all__ = ["DeviceArray"]

Array = npt.NDArray[Any]

_BITS_OF_BFLOAT16 = np.dtype(np.int16)  # NumPy has no such type: its bits travel


class DeviceArray:
    """An array in the memory of a GPU, not filled, for whoever reads `__cuda_array_interface__`.

    That is what a collective returns for an array of a GPU that is neither CuPy's nor torch's.

    Args:
        shape: of the array.
        dtype: what NumPy has.
        device: the number of the GPU.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, device: int = 0
    ) -> None:
        self.shape = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        size = math.prod(self.shape) * self.dtype.itemsize
        self._memory = _core.DeviceMemory(size, device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._memory.pointer, False),
            "version": 3,
        }

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"


@dataclass(frozen=True)
class OnDevice:
    """An array of a GPU."""

    array: Any
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of its copies on the host
    is_bfloat16: bool
    stream: int  # in whose order its memory may be touched now
    writable: bool
    new: Callable[[tuple[int, ...]], Any]  # makes an array of this kind, of any shape

    def read(self) -> Array:
        size = math.prod(self.shape) * self.dtype.itemsize
        if size == 0:
            return np.empty(self.shape, self.dtype)
        data = _core.cuda_read(self.pointer, size, self.stream)
        return data.view(self.dtype).reshape(self.shape)

    def write(self, values: Array) -> None:
        """In the order of the stream of today: that of an asynchronous call may have ended."""
        if values.nbytes:
            now = on_device(self.array)
            assert now is not None
            _core.cuda_write(now.pointer, np.ascontiguousarray(values), now.stream)

    def like(self, values: Array) -> Any:
        """An array of this kind with these values."""
        made = self.new(values.shape)
        found = on_device(made)
        assert found is not None
        found.write(values)
        return made


def on_device(x: Any) -> OnDevice | None:
    """Nothing if `x` is no array of a GPU. Raises `TypeError` for one that cannot be taken."""
    if isinstance(x, (np.ndarray, np.generic)):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _of_torch(x.detach(), torch) if x.device.type == "cuda" else None
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return _of_cupy(x, cupy)
    try:
        interface = x.__cuda_array_interface__
    except (AttributeError, RuntimeError):  # the latter from arrays of JAX on the CPU
        return None
    return _of_interface(x, interface)


def _of_torch(x: Any, torch: Any) -> OnDevice:
    if x.layout is not torch.strided:
        raise TypeError(f"a dense tensor is needed, not one of layout {x.layout}")
    _require_contiguous(x.is_contiguous())
    name = str(x.dtype).removeprefix("torch.")  # NumPy's too, where it has the type
    if name not in _core.DType.__members__:
        raise TypeError(_unsupported(f"tensors of {x.dtype}"))
    is_bfloat16 = name == "bfloat16"
    negated = x.is_neg()  # only marked: its memory has the values with the other sign
    if negated:
        x = x.resolve_neg()
    return OnDevice(
        x,
        x.data_ptr(),
        tuple(x.shape),
        _BITS_OF_BFLOAT16 if is_bfloat16 else np.dtype(name),
        is_bfloat16,
        torch.cuda.current_stream(x.device).cuda_stream,
        not negated,
        lambda shape: torch.empty(shape, dtype=x.dtype, device=x.device),
    )


def _of_cupy(x: Any, cupy: Any) -> OnDevice:
    is_bfloat16 = x.dtype.name == "bfloat16"

    def new(shape: tuple[int, ...]) -> Any:
        with x.device:
            return cupy.empty(shape, x.dtype)

    _require_contiguous(x.flags.c_contiguous)
    with x.device:  # whose stream is meant
        stream = cupy.cuda.get_current_stream().ptr
    dtype = _BITS_OF_BFLOAT16 if is_bfloat16 else _native(x.dtype)
    return OnDevice(x, x.data.ptr, x.shape, dtype, is_bfloat16, stream, True, new)


def _of_interface(x: Any, interface: dict[str, Any]) -> OnDevice:
    try:
        shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        pointer, read_only = interface["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise TypeError(
            f"__cuda_array_interface__ of {type(x).__name__} is wrong: {error!r}"
        ) from None
    if interface.get("mask") is not None:
        raise TypeError("a masked array has no value where it is masked; fill it first")
    strides = interface.get("strides")
    _require_contiguous(strides is None or _are_contiguous(strides, shape, dtype.itemsize))
    device = _core.cuda_device_of(pointer) if pointer else 0
    stream = interface.get("stream") or 0
    return OnDevice(
        x,
        pointer,
        shape,
        _native(dtype),
        False,
        stream,
        not read_only,
        lambda shape: DeviceArray(shape, dtype, device),
    )


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if not dtype.isnative:
        raise TypeError(
            f"an array of a GPU must have the byte order of this machine, not {dtype.str}"
        )
    if dtype.name not in _core.DType.__members__:
        raise TypeError(_unsupported(f"arrays of {dtype}"))
    return dtype


def _unsupported(what: str) -> str:
    return f"{what} are not supported; supported types are {', '.join(_core.DType.__members__)}"


def _are_contiguous(strides: tuple[int, ...], shape: tuple[int, ...], itemsize: int) -> bool:
    """Dimensions of one element may have any stride."""
    expected = [itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return all(
        length == 1 or have == want
        for length, have, want in zip(shape, strides, expected, strict=True)
    )


def _require_contiguous(is_contiguous: bool) -> None:
    if not is_contiguous:
        raise TypeError(
            "an array of a GPU must be contiguous: pass x.copy() of CuPy, x.contiguous() of torch"
        )
