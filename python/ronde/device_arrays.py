"""Arrays in the memory of GPUs, as collectives take them and give them back.

What a collective moves is a copy in pinned memory of the host. The copies run in the order of the caller's
stream, so neither side needs to synchronise: the values are those that the stream has written, and what the
caller enqueues next sees the result.
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

_BYTES_OF_BFLOAT16 = np.dtype(np.int16)  # NumPy has no such type: its bits travel


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

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of its copies on the host
    is_bfloat16: bool
    stream: int  # in whose order its memory may be touched
    writable: bool
    new: Callable[[tuple[int, ...]], Any]  # makes an array of this kind, of any shape

    def read(self) -> Array:
        size = math.prod(self.shape) * self.dtype.itemsize
        if size == 0:
            return np.empty(self.shape, self.dtype)
        data = _core.cuda_read(self.pointer, size, self.stream)
        return data.view(self.dtype).reshape(self.shape)

    def write(self, array: Array) -> None:
        if array.nbytes:
            _core.cuda_write(self.pointer, np.ascontiguousarray(array), self.stream)

    def like(self, array: Array) -> Any:
        """An array of this kind with these values."""
        made = self.new(array.shape)
        found = on_device(made)
        assert found is not None
        found.write(array)
        return made


def on_device(x: Any) -> OnDevice | None:
    """Nothing if `x` is no array of a GPU. Raises `TypeError` for one that is not contiguous."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _of_torch(x.detach(), torch) if x.device.type == "cuda" else None
    try:
        interface = x.__cuda_array_interface__
    except AttributeError:
        return None
    return _of_interface(x, interface)


def _of_torch(x: Any, torch: Any) -> OnDevice:
    if x.layout is not torch.strided:
        raise TypeError(f"a dense tensor is needed, not one of layout {x.layout}")
    _require_contiguous(x.is_contiguous())
    is_bfloat16 = x.dtype is torch.bfloat16
    # The name that NumPy has for the type too, if it has one.
    name = str(x.dtype).removeprefix("torch.")
    return OnDevice(
        x.data_ptr(),
        tuple(x.shape),
        _BYTES_OF_BFLOAT16 if is_bfloat16 else np.dtype(name),
        is_bfloat16,
        torch.cuda.current_stream(x.device).cuda_stream,
        True,
        lambda shape: torch.empty(shape, dtype=x.dtype, device=x.device),
    )


def _of_interface(x: Any, interface: dict[str, Any]) -> OnDevice:
    try:
        shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        pointer, read_only = interface["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise TypeError(
            f"__cuda_array_interface__ of {type(x).__name__} is wrong: {error!r}"
        ) from None
    strides = interface.get("strides")
    _require_contiguous(strides is None or strides == _contiguous_strides(shape, dtype.itemsize))
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):

        def new(shape: tuple[int, ...]) -> Any:
            with x.device:
                return cupy.empty(shape, x.dtype)
    else:

        def new(shape: tuple[int, ...]) -> Any:
            return DeviceArray(shape, dtype, _core.cuda_device_of(pointer) if pointer else 0)

    return OnDevice(pointer, shape, dtype, False, interface.get("stream") or 0, not read_only, new)


def _contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _require_contiguous(is_contiguous: bool) -> None:
    if not is_contiguous:
        raise TypeError(
            "an array of a GPU must be contiguous: pass x.copy() of CuPy, x.contiguous() of torch"
        )
