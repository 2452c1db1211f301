"""Matrices as products of two thin ones: PowerSGD. csrc/methods/power_sgd.h has the method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ..arrays import ArrayLike, view
from ._floats import floats_of, room_for
from ._method import Floats
from .codecs import Predictable, Traffic, whole

__all__ = ["PowerSGD"]

Bytes = npt.NDArray[np.uint8]

_MAX_RANK = 32
_ITERATIONS = 2  # of `compress`, which begins with random vectors


class PowerSGD(Predictable):
    """Sums of matrices over ranks, of a low rank (Vogels et al. 2019).

    It serves one job at a time, because it keeps state: every parameter has *factors*, the
    orthonormal Q of the last step, with which the next step begins (warm start). So over the steps
    it comes to span what matters most. Factors are the same on all ranks. The first are random, by
    the seed and the name; so are those that replace directions in which nothing was found. Needs
    error feedback. Factors are known by the names of parameters, so two optimizers that share a
    `powersgd` need names of their own.

    An array of more than two dimensions is a matrix of its first dimension and the rest. Arrays of
    fewer dimensions, and those so small that nothing is gained, are reduced exactly. Ranks of one
    machine project their own gradients, and their sums are reduced in shared memory first. Inside
    one machine all is exact.

    NaN or infinity on any rank, or sums beyond float32, make the whole matrix NaN on all ranks.
    Factors stay as they were, and the residual but for rounding.

    Args:
        rank: the rank of the result, 1 to 32; for a matrix with fewer rows or columns, that number.
        seed: of the random numbers.

    Raises:
        ValueError: `rank` is out of range.
    """

    unbiased = False

    def __init__(self, rank: int = 4, *, seed: int = 0) -> None:
        self.rank = whole("rank", rank)
        if not 1 <= self.rank <= _MAX_RANK:
            raise ValueError(f"the rank must be 1 to {_MAX_RANK}, not {rank}")
        self.seed = whole("seed", seed)
        self._native: _core.PowerSgd = _core.PowerSgd(self.rank, str(self.seed))

    def worth_it(self, shape: Sequence[int]) -> bool:
        """Return whether low rank sends less for an array of this shape."""
        return self._native.worth_it(list(shape))

    def reduce(
        self,
        matrices: Sequence[Floats],
        residuals: Sequence[Floats],
        names: Sequence[str],
        allreduce: Callable[[list[Floats]], None],
        ranks: int,
        factor: float,
        outputs: Sequence[Floats],
    ) -> None:
        """Stores about `factor` times the sum of every matrix over the ranks, residuals included.

        `matrices`, `residuals` and `outputs`: contiguous arrays of float32, of two or more dimensions but for
        the residuals, of the same elements; an output may be its matrix. `allreduce` sums a group of arrays
        over the `ranks` ranks, exactly and in place; it is called twice. What the sum leaves out is, but for
        rounding, what the residuals of all ranks add up to.
        """
        self._native.reduce(matrices, residuals, names, allreduce, ranks, factor, outputs)

    def state_dict(self) -> dict[str, Any]:
        """Return the factors, which are the same on all ranks, and the steps of the random numbers."""
        factors, steps = self._native.state()
        return {"factors": factors, "steps": steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; `ValueError` for anything else."""
        if not isinstance(state, Mapping) or not {"factors", "steps"} <= state.keys():
            raise ValueError(
                f"state is not what state_dict() gave, which has factors and steps: {state!r}"
            )
        self._native.load(dict(state["factors"]), dict(state["steps"]))

    def _traffic(
        self, shapes: Sequence[tuple[int, ...]], ranks: int, local_size: int, link: _core.Link
    ) -> Traffic:
        sent = encoded = 0
        for shape in shapes:
            if self.worth_it(shape):
                rows, columns = _matrix_shape(shape)
                sent += (rows + columns) * self._rank_of(rows, columns)
                encoded += rows * columns
            else:
                sent += math.prod(shape)
        bytes_sent = 2 * (ranks - 1) / ranks * 4 * sent / local_size
        return Traffic(bytes_sent, encoded, 0, overlaps=False)

    def _seconds(self, values: Floats) -> tuple[float, float]:
        alone, residual = PowerSGD(self.rank), np.zeros(values.size, np.float32)
        start = time.perf_counter()
        alone.reduce([values], [residual], ["w"], lambda arrays: None, 1, 1.0, [values])
        return time.perf_counter() - start, 0.0

    def compress(self, x: ArrayLike) -> tuple[Bytes, Any]:
        """Return the payload of `x` and what `decompress` needs besides. No state is used.

        The payload is P and Q after two iterations from random vectors, or the values themselves
        where low rank sends no less.

        Args:
            x: an array of floats, of any shape.

        Raises:
            TypeError: `x` is not of a floating type.
        """
        values, origin = floats_of(view(x))
        if not self.worth_it(values.shape):
            return values.reshape(-1).view(np.uint8).copy(), origin
        matrix = _as_matrix(values)
        product, right = self._product(matrix.shape), self._native.first(*matrix.shape)
        for _ in range(_ITERATIONS):
            _core.orthogonalise(right)
            left = product.project(matrix, right)
            if not _core.orthogonalise(left):
                left.fill(np.nan)
            right = product.back_project(matrix, left)
        return np.concatenate([left, right], axis=None).view(np.uint8), origin

    def decompress(self, payload: Bytes, ctx: Any) -> Any:
        """Return the array of a payload, of the kind, dtype and shape of what was compressed.

        Raises:
            ValueError: this is no payload of such an array.
        """
        values = room_for(payload, ctx)
        if self.worth_it(values.shape):
            matrix = _as_matrix(values)
            rows, columns = matrix.shape
            rank = self._rank_of(rows, columns)
            left, right = np.split(_numbers(payload, rank * (rows + columns)), [rank * rows])
            self._product(matrix.shape).reconstruct(left, right, matrix)
        else:
            values[...] = _numbers(payload, values.size).reshape(values.shape)
        return ctx.array(values)

    def _rank_of(self, rows: int, columns: int) -> int:
        return min(self.rank, rows, columns)

    def _product(self, shape: tuple[int, int]) -> _core.LowRank:
        return _core.LowRank(*shape, self._rank_of(*shape))

    def __getstate__(self) -> dict[str, Any]:
        factors, steps = self._native.state()
        state = {**vars(self), "_factors": factors, "_steps": steps}
        del state["_native"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._native = _core.PowerSgd(self.rank, str(self.seed))
        self._native.load(vars(self).pop("_factors"), vars(self).pop("_steps"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerSGD) and (self.rank, self.seed) == (other.rank, other.seed)

    def __hash__(self) -> int:
        return hash((self.rank, self.seed))

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.seed else ""
        return f"ronde.compression.powersgd(rank={self.rank}{seed})"


def _matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _as_matrix(array: Floats) -> Floats:
    if array.ndim < 2 or not array.flags.c_contiguous:
        raise ValueError("a contiguous array of two or more dimensions is needed")
    return array.reshape(_matrix_shape(array.shape))


def _numbers(payload: Bytes, count: int) -> Floats:
    """What a payload of so many numbers holds."""
    if payload.dtype != np.uint8 or payload.shape != (4 * count,):
        raise ValueError(
            f"a payload of this array has {4 * count} bytes of uint8, "
            f"not {payload.dtype} of shape {payload.shape}"
        )
    numbers: Floats = np.empty(count, np.float32)
    numbers.view(np.uint8)[...] = payload  # wherever that lies
    return numbers
