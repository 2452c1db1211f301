"""Memory that the ranks of a machine share."""

from __future__ import annotations

import logging
import math
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import UnavailableError

__all__ = ["empty"]

S = TypeVar("S", bound=np.generic)

_log = logging.getLogger("ronde")
_warned = False


@overload
def empty(shape: int | Sequence[int]) -> npt.NDArray[np.float32]: ...
@overload
def empty(shape: int | Sequence[int], dtype: type[S] | np.dtype[S]) -> npt.NDArray[S]: ...
@overload
def empty(shape: int | Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]: ...
def empty(shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Return a new NumPy array, not filled, in memory that all ranks of this machine can reach.

    Inside a machine, collectives reduce and copy large arrays of this kind in place, without a
    stage: `allreduce_`, `broadcast_`, `reducescatter`, `allgather`, `gather` and `alltoall`, where
    all ranks pass such an array, and not in groups.

    The call is local: other ranks need not make it. The memory is freed when the last array or view
    of it is gone. A forked child shares it with this process: what it writes, this process sees.
    Where the system has no shared memory to give, the array is an ordinary one, and a warning says
    so once.

    Args:
        shape: as for `numpy.empty`.
        dtype: any type of NumPy whose elements have a fixed size.

    Raises:
        TypeError: elements of `dtype` have no fixed size.
        ValueError: a dimension is negative, or the array is too large.
    """
    global _warned
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a type of NumPy, as np.float32, not {dtype!r}") from None
    if kind.hasobject or kind.itemsize == 0 or kind.subdtype is not None:
        raise TypeError(f"dtype {kind}: such elements cannot be shared; they need a fixed size")
    try:
        lengths = tuple(map(operator.index, shape if isinstance(shape, Iterable) else (shape,)))
    except TypeError:
        raise TypeError(
            f"shape must be a whole number or several, as (2, 3), not {shape!r}"
        ) from None
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape {lengths}: negative dimensions are not allowed")
    size = math.prod(lengths) * kind.itemsize
    if size > sys.maxsize:
        raise ValueError(f"an array of {size} bytes is too large")
    try:
        memory = _core.shared_array(size)
    except UnavailableError as error:
        if not _warned:
            _warned = True
            _log.warning("ronde.empty returns ordinary memory: %s", error)
        return np.empty(lengths, kind)
    return memory.view(kind).reshape(lengths)
