"""What there is of CUDA: in this build of Ronde, and on this machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import RondeError

__all__ = ["DeviceArray", "cuda_available", "cuda_built"]


def cuda_built() -> bool:
    """Return whether this build of Ronde has kernels for GPUs.

    It needs neither a GPU nor a driver. `ronde doctor` says for which GPUs.
    """
    return bool(_core.cuda_architectures())


def cuda_available() -> bool:
    """Return whether Ronde can use a GPU here.

    That takes a build with kernels for it, the NVIDIA driver, and a GPU that this process may use.
    `ronde doctor` says what is missing.
    """
    try:
        return bool(_core.cuda_devices())
    except RondeError:
        return False


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
