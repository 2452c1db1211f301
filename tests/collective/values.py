"""Inputs whose reductions are exact in every dtype, and their references."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import ronde
from ronde import _core

DTYPES = list(_core.DType.__members__.values())
OPS = [ronde.Sum, ronde.Product, ronde.Min, ronde.Max]

# Every type, and every operation, but not all of both: tests/kernels has those.
CASES = [(dtype, OPS[i % len(OPS)]) for i, dtype in enumerate(DTYPES)]
CASES += [(_core.DType.float32, op) for op in OPS if (_core.DType.float32, op) not in CASES]

_NUMPY = {_core.DType.bfloat16: np.dtype(ml_dtypes.bfloat16)}
_UFUNCS = {
    ronde.Sum: np.add,
    ronde.Product: np.multiply,
    ronde.Min: np.minimum,
    ronde.Max: np.maximum,
}


def numpy_dtype(dtype: _core.DType) -> np.dtype[Any]:
    return _NUMPY.get(dtype) or np.dtype(dtype.name)


def contribution(rank: int, count: int, dtype: _core.DType, op: ronde.Op) -> Any:
    """Small whole numbers: their sums over 8 ranks, and the products of ones and twos, fit every type
    (int8 and bool wrap and saturate as the reference does)."""
    generator = np.random.default_rng([rank, count])
    low, high = (1, 3) if op is ronde.Product else (0, 4)
    values = generator.integers(low, high, count)
    if dtype is _core.DType.bool:
        values = values > 1
    return values.astype(numpy_dtype(dtype))


def reduced(contributions: list[Any], op: ronde.Op) -> Any:
    """The reduction by NumPy in the dtype itself: exact, so the order does not matter."""
    ufunc = _UFUNCS[op]
    return functools.reduce(lambda a, b: ufunc(a, b).astype(a.dtype), contributions)


@functools.lru_cache(maxsize=100)
def example(size: int, count: int, dtype: _core.DType, op: ronde.Op) -> tuple[list[Any], Any]:
    """What all ranks contribute, and the result. Not to be written to: all ranks get the same arrays."""
    inputs = [contribution(rank, count, dtype, op) for rank in range(size)]
    return inputs, reduced(inputs, op)


def same_bits(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
