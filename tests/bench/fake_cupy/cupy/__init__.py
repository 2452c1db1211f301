"""What the peer NCCL uses of CuPy, in memory of the host.

What is enqueued is done when its stream is waited for.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "0"


class ndarray(np.ndarray):
    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, values: np.ndarray) -> None:
        assert type(values) is np.ndarray
        assert (values.shape, values.dtype) == (self.shape, self.dtype)
        self[...] = values

    def get(self) -> np.ndarray:
        return np.array(self)


def empty(shape: int, dtype: np.dtype[Any]) -> ndarray:
    return np.empty(shape, dtype).view(ndarray)
