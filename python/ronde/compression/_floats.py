"""float32, in which compressors compute: for one by itself, arrays of other floating types are converted to
it, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..arrays import View, is_floating
from ._method import Floats

__all__ = ["Origin", "floats_of", "room_for"]

DType = _core.DType
# Converted by what compresses to them: NumPy does not know bfloat16, and its bits may come alone.
_HALVES = {DType.float16: "fp16", DType.bfloat16: "bf16"}


@cache
def _half(dtype: _core.DType) -> _core.Compressor:
    return _core.Compressor(_HALVES[dtype])


def to_floats(array: Any, dtype: _core.DType) -> Floats:
    """The values in float32: `array` itself if they are, else a new array."""
    if dtype not in _HALVES:
        return np.asarray(array, np.float32)
    values: Floats = np.empty(array.shape, np.float32)
    _half(dtype).decode(array.reshape(-1).view(np.uint8), values.reshape(-1), False)
    return values


def from_floats(values: Floats, array: Any, dtype: _core.DType) -> None:
    """Stores the values in `array`, each rounded to its type."""
    if dtype not in _HALVES:
        array[...] = values
        return
    payload = _half(dtype).encode(np.ascontiguousarray(values).reshape(-1), None, 0, 0)
    array.reshape(-1).view(np.uint8)[...] = payload


class Origin(NamedTuple):
    """Of what array values are: enough to make one like it."""

    shape: tuple[int, ...]
    numpy_dtype: np.dtype[Any]
    dtype: _core.DType
    wrap: Callable[[Any], Any]

    def array(self, values: Floats) -> Any:
        if self.dtype is DType.float32:
            return self.wrap(values)
        array = np.empty(self.shape, self.numpy_dtype)
        from_floats(values, array, self.dtype)
        return self.wrap(array)


def room_for(payload: Any, ctx: Any) -> Floats:
    """For the values of a payload. `TypeError` where the two are nothing that `compress` returns."""
    if not isinstance(payload, np.ndarray):
        raise TypeError(f"payload must be the array of bytes that compress() made, not {payload!r}")
    if not isinstance(ctx, Origin):
        raise TypeError(f"ctx must be what compress() returned beside the payload, not {ctx!r}")
    return np.empty(ctx.shape, np.float32)


def floats_of(seen: View) -> tuple[Floats, Origin]:
    """For one array by itself. `TypeError` for other types, `ValueError` for what float32 cannot hold."""
    if not is_floating(seen.dtype):
        raise TypeError(f"compression needs a floating type, not {seen.dtype.name}")
    with np.errstate(over="ignore"):
        values = to_floats(seen.array, seen.dtype)
    if seen.dtype is DType.float64 and (np.isinf(values) & np.isfinite(seen.array)).any():
        raise ValueError(
            "x has values beyond the range of float32 (3.4e38), in which compression computes"
        )
    return values, Origin(seen.shape, seen.array.dtype, seen.dtype, seen.wrap)
