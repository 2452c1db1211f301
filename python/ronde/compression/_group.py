"""What a way of compressing is given: the arrays of a call, and how to reduce them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._calls import buckets

__all__ = ["Floats", "Group", "Method", "Parts", "squares"]

Floats = npt.NDArray[np.float32]
Parts = tuple[tuple[str, int], ...]  # names and elements, in the order of a vector


def squares(x: Floats) -> float:
    """Their sum, which float32 could not hold."""
    return float(np.sum(np.square(x, dtype=np.float64)))


class Method(ABC):
    """A way to reduce arrays in fewer bytes. All ranks must give the same."""

    feeds_back = False
    """Whether a call leaves something behind for later ones: it must not see a step that is skipped."""

    @abstractmethod
    def _reduce(self, group: Group) -> None:
        """Reduces the arrays of float32 into the outputs of the group: all ranks get the same bits."""


@dataclass(frozen=True)
class Group:
    """Arrays of a call that are reduced in one way, after the ranks have agreed on all of the call."""

    communicator: _core.Communicator
    inputs: Sequence[Any]  # NumPy arrays, not to be written
    outputs: Sequence[Any]  # the same ones, or of the same shapes
    dtypes: Sequence[_core.DType]
    names: Sequence[str]  # of the arrays; empty where the call has none
    op: _core.Op
    call: str | None  # the name of the call
    factors: tuple[float, float]  # before and after the reduction
    limit: int  # bytes of a bucket

    def buckets(self) -> Iterator[Group]:
        """The same arrays, those of one dtype in groups of a limited size."""
        sizes = [each.nbytes for each in self.inputs]
        for indices in buckets(self.dtypes, sizes, self.limit):
            yield self.part(indices)

    def part(self, indices: Sequence[int]) -> Group:
        def some(of: Sequence[Any]) -> list[Any]:
            return [of[i] for i in indices]

        return replace(
            self,
            inputs=some(self.inputs),
            outputs=some(self.outputs),
            dtypes=some(self.dtypes),
            names=some(self.names),
        )

    def scaled(self, added: Sequence[Floats | None] | None = None) -> Group:
        """The same with the first factor applied, and something added to it for each array or None."""
        added = added or [None] * len(self.inputs)
        if self.factors[0] == 1.0 and all(each is None for each in added):
            return self
        inputs = []
        for x, more in zip(self.inputs, added, strict=True):
            scaled = x if self.factors[0] == 1.0 else np.asarray(x * np.float32(self.factors[0]))
            inputs.append(
                scaled if more is None else np.asarray(scaled + more.reshape(scaled.shape))
            )
        return replace(self, inputs=inputs, factors=(1.0, self.factors[1]))

    def allreduce(self, compression: _core.Compression | None = None, detail: str = "") -> None:
        """As one vector, if this is a bucket. `detail`: in words, what the ranks must agree on besides."""
        self.communicator.allreduce_bucket(
            self.inputs,
            self.outputs,
            self.dtypes[0],
            self.op,
            self.call,
            *self.factors,
            compression,
            detail,
        )

    def allreduce_exactly(self) -> None:
        for bucket in self.buckets():
            bucket.allreduce()

    def split(self, vector: Floats) -> list[Floats]:
        """The parts of a vector that belong to the arrays, one after another."""
        ends = np.cumsum([each.size for each in self.inputs])
        return np.split(vector, ends[:-1])

    def combine(
        self,
        arrays: Sequence[Any],
        detail: str,
        dtype: _core.DType = _core.DType.float32,
        op: _core.Op = _core.Op.Sum,
    ) -> None:
        """Reduces further arrays, which all are of that dtype, over the ranks: exactly and in place."""
        if not arrays:
            return
        self.communicator.allreduce_bucket(
            arrays, arrays, dtype, op, self.call, 1.0, 1.0, None, detail
        )

    def agreed(self, values: Any, op: _core.Op, detail: str) -> npt.NDArray[np.float64]:
        """A few numbers that all ranks learn of each other."""
        result = np.array(values, np.float64)
        self.combine([result], detail, _core.DType.float64, op)
        return result

    @property
    def divisor(self) -> int:
        """What the sum is divided by."""
        return self.communicator.size if self.op is _core.Op.Average else 1

    @property
    def parts(self) -> Parts:
        """Name and number of elements of each array."""
        return tuple((name, each.size) for name, each in zip(self.names, self.inputs, strict=True))
