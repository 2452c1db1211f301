"""Matrices as products of two thin ones: PowerSGD (Vogels, Karimireddy, Jaggi 2019).

    P = M Q          M: a gradient plus its residual, rows x columns; Q: what the last step has found
    Q = M^T P        P: summed over the ranks, its columns made orthonormal
    sum = P Q^T      Q: summed over the ranks

Only P and Q travel, rank (rows + columns) numbers for rows columns, and as sums: so exact allreduces do
it, at a cost that does not grow with the number of ranks. csrc/compress/low_rank.h has the arithmetic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ..arrays import ArrayLike, view
from ._floats import floats_of, room_for
from ._group import Floats, Group
from .codecs import Predictable, Traffic, key_of, whole

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
    error feedback.

    An array of more than two dimensions is a matrix of its first dimension and the rest. Arrays of
    fewer dimensions, and those so small that nothing is gained, are reduced exactly. Ranks of one
    machine project their own gradients, and their sums are reduced in shared memory first. Inside
    one machine all is exact.

    NaN or infinity on any rank, or sums beyond float32, make the whole matrix NaN on all ranks, and
    change no state.

    Args:
        rank: the rank of the result, 1 to 32; for a matrix with fewer rows or columns, that number.
        seed: of the random numbers.

    Raises:
        ValueError: `rank` is out of range.
    """

    unbiased = False
    per_rank = True

    def __init__(self, rank: int = 4, *, seed: int = 0) -> None:
        self.rank = whole("rank", rank)
        if not 1 <= self.rank <= _MAX_RANK:
            raise ValueError(f"the rank must be 1 to {_MAX_RANK}, not {rank}")
        self.seed = whole("seed", seed)
        self._factors: dict[str, Floats] = {}
        self._steps: dict[str, int] = {}

    def worth_it(self, shape: Sequence[int]) -> bool:
        """Return whether low rank sends less for an array of this shape."""
        if len(shape) < 2 or 0 in shape:
            return False
        rows, columns = _matrix_shape(shape)
        return (rows + columns) * self._rank_of(rows, columns) < rows * columns

    def _reduce_bucket(self, bucket: Group, residual: Floats | None, step: int) -> None:
        one_machine = bucket.communicator.local_size == bucket.communicator.size
        lefts = None if residual is None else bucket.split(residual)
        matrices, rest, residuals, waiting = [], [], [], []
        for i, x in enumerate(bucket.inputs):
            left = np.zeros(x.size, np.float32) if lefts is None else lefts[i]
            if self.worth_it(x.shape) and not one_machine:
                matrices.append(i)
                residuals.append(left)
            else:
                rest.append(i)
                waiting.append(left.copy() if left.any() else None)
                left[...] = 0
        if rest:
            bucket.part(rest).scaled(waiting).allreduce()
        if not matrices:
            return
        some = bucket.scaled().part(matrices)
        self.reduce(
            some.inputs,
            residuals,
            some.names,
            lambda arrays: some.combine(arrays, f"compression={self!r}"),
            some.communicator.size,
            some.factors[1] / some.divisor,
            some.outputs,
        )

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
        terms = [
            self._term(_as_matrix(matrix), residual, name, _as_matrix(output))
            for matrix, residual, name, output in zip(
                matrices, residuals, names, outputs, strict=True
            )
        ]
        lefts = [term.project() for term in terms]
        allreduce(lefts)
        finite = [_core.orthogonalise(left) for left in lefts]
        rights = [term.back_project(left) for term, left in zip(terms, lefts, strict=True)]
        allreduce(rights)
        for term, good, left, right in zip(terms, finite, lefts, rights, strict=True):
            if good and np.isfinite(right).all():
                term.reconstruct(left, right, factor, ranks)
                self._warm_start(term, right)
            else:
                term.give_up()

    def state_dict(self) -> dict[str, Any]:
        """Return the factors, which are the same on all ranks, and the steps of the random numbers."""
        return {
            "factors": {name: right.copy() for name, right in self._factors.items()},
            "steps": dict(self._steps),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; `ValueError` for anything else."""
        if not isinstance(state, Mapping) or not {"factors", "steps"} <= state.keys():
            raise ValueError(
                f"state is not what state_dict() gave, which has factors and steps: {state!r}"
            )
        self._factors = {
            name: np.array(right, np.float32) for name, right in state["factors"].items()
        }
        self._steps = dict(state["steps"])

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
        product, right = self._product(matrix.shape), self._random(matrix.shape, 0, "")
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

    def _random(self, shape: tuple[int, int], step: int, name: str) -> Floats:
        """The same right vectors on every machine, orthonormal: of uniform numbers, which need no
        functions that libraries compute differently."""
        bits = np.random.Generator(np.random.Philox(key=key_of(self.seed, step, name)))
        right = 2 * bits.random((self._rank_of(*shape), shape[1]), np.float32) - 1
        _core.orthogonalise(right)
        return right

    def _term(self, matrix: Floats, residual: Floats, name: str, out: Floats) -> _Term:
        if not residual.size == matrix.size == out.size:
            raise ValueError(
                f"the residual of {name!r} has {residual.size} elements, the matrix {matrix.size}, "
                f"the output {out.size}"
            )
        right = self._factors.get(name)
        if right is None or right.shape != (self._rank_of(*matrix.shape), matrix.shape[1]):
            right, self._steps[name] = self._random(matrix.shape, 0, name), 0
        product = self._product(matrix.shape)
        return _Term(product, name, matrix, residual.reshape(matrix.shape), right, out)

    def _warm_start(self, term: _Term, right: Floats) -> None:
        """The next step begins with these; with others where there was nothing."""
        _core.orthogonalise(right)
        self._steps[term.name] += 1
        nothing = ~right.any(axis=1)
        if nothing.any():
            others = self._random(term.matrix.shape, self._steps[term.name], term.name)
            right[nothing] = others[nothing]
        self._factors[term.name] = right

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerSGD) and (self.rank, self.seed) == (other.rank, other.seed)

    def __hash__(self) -> int:
        return hash((self.rank, self.seed))

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.seed else ""
        return f"ronde.compression.powersgd(rank={self.rank}{seed})"


@dataclass
class _Term:
    """A matrix in a call of `reduce`."""

    product: _core.LowRank
    name: str
    matrix: Floats
    residual: Floats
    right: Floats  # of the last step
    out: Floats

    def project(self) -> Floats:
        return self.product.project(self.matrix, self.right, self.residual)

    def back_project(self, left: Floats) -> Floats:
        return self.product.back_project(self.residual, left)

    def reconstruct(self, left: Floats, right: Floats, factor: float, ranks: int) -> None:
        self.product.reconstruct(left, right, self.out, factor, self.residual, ranks)

    def give_up(self) -> None:
        with np.errstate(all="ignore"):
            self.residual -= self.matrix
        self.residual[~np.isfinite(self.residual)] = 0
        self.out.fill(np.nan)


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
