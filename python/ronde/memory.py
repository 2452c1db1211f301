"""Memory that the ranks of a machine share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import UnavailableError

__all__ = ["empty"]

_log = logging.getLogger("ronde")
_warned = False


def empty(
    shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32
) -> np.ndarray[Any, np.dtype[Any]]:
    """A new NumPy array, not filled, in memory that all ranks of this machine can reach.

    Collectives inside a machine reduce and copy such arrays where they lie, with no copy on the way, if
    those of all ranks are such arrays, or contiguous parts of them. What `allreduce`, `reduce` and
    `reducescatter` make of them are such arrays too.

    `dtype`: any fixed-size type of NumPy. The call is local: other ranks need not make it. The memory is
    given back when the last array or view of it is gone. Where the system has no shared memory to give,
    the array is an ordinary one, and a warning says so once.
    """
    global _warned
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError("an array of Python objects cannot be shared")
    lengths = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"negative dimensions are not allowed: {lengths}")
    count = int(np.prod(lengths, dtype=object)) if lengths else 1
    try:
        memory = _core.shared_array(count * kind.itemsize)
    except UnavailableError as error:
        if not _warned:
            _warned = True
            _log.warning("ronde.empty gives ordinary memory: %s", error)
        return np.empty(lengths, kind)
    return memory.view(kind).reshape(lengths)
