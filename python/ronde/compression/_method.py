"""What all ways of compressing have in common."""

from __future__ import annotations

import weakref
from abc import ABC
from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core

__all__ = ["Floats", "Method", "Parts", "Steps", "agreed"]

Floats = npt.NDArray[np.float32]
Parts = tuple[tuple[str, int], ...]  # names and elements, in the order of a vector
Steps = Generator[_core.Step, None, Any]


class Method(ABC):
    """A way to reduce arrays in fewer bytes. All ranks must give the same."""

    _native: _core.Method


class PythonMethod(Method):
    """A method that is written in Python, as a generator: it yields what it wants the ranks to do, one step
    after another, and is resumed when that has been done.

    It runs while its call is under way, and must make no other call.
    """

    def __init__(self, residuals: _core.Residuals | None = None) -> None:
        """`residuals`: those that the method keeps itself."""
        self._native = _core.PythonMethod(weakref.ref(self), residuals)

    def _feeds_back(self, communicator: _core.Communicator, buckets: list[Parts]) -> bool:
        """Whether a call leaves something behind for later ones: it must not see a step that is skipped."""
        return False

    def _position(self, communicator: _core.Communicator, buckets: list[Parts]) -> str:
        """What must be the same on all ranks besides the call, in words. Calls with other buckets do not
        change it, which ranks may make in another order."""
        return ""

    def _reduce(self, bucket: _core.Bucket, residual: Floats | None, step: int) -> Steps:
        """Reduces the arrays of a bucket into its outputs: all ranks get the same bits.

        `residual`: of the whole bucket, in one dimension; `step` counts calls. Returns None; or an exception
        to which all ranks have come: they raise it, and go on.
        """
        raise NotImplementedError


def agreed(
    bucket: _core.Bucket, values: Any, op: _core.Op
) -> Generator[_core.Step, None, npt.NDArray[np.float64]]:
    """A few numbers that all ranks learn of each other."""
    result = np.array(values, np.float64)
    yield _core.Allreduce(bucket, [result], [result], _core.DType.float64, op)
    return result
