"""Sums of integers: all ranks round to multiples of one step, so that nothing has to be decoded on the way.

    step = max / L, for each block; max: the greatest |gradient + residual| of all ranks, L: 2^(bits-1) - 1
    q = round((gradient + residual) / step)
    sum = step * (sum of q over the ranks)

Maxima and integers are reduced by exact allreduces, as in SwitchML (Sapio et al. 2021) and IntSGD (Mishchenko
et al. 2022), whose steps are found in other ways. csrc/compress/shared_scale.h has the arithmetic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from ._group import Floats, Group
from .codecs import Compressor, Traffic, key_of, whole

__all__ = ["SharedScale"]

# What sums may be, from the shortest on.
_INTEGERS: dict[np.dtype[Any], _core.DType] = {
    np.dtype(np.int8): _core.DType.int8,
    np.dtype(np.int16): _core.DType.int16,
}
_MOST = np.iinfo(np.int16).max


class SharedScale(Compressor):
    """Integers of a few bits that are added as they are, with one step for all ranks.

    They travel as int8 where the sum over all ranks fits, as int16 otherwise; `ValueError` where more than
    `most_ranks` are to be added. A payload by itself, that of `compress`, has steps of its own and int8.
    """

    per_rank = True

    def __init__(self, bits: int, block: int, rounding: str, seed: int) -> None:
        parameters = {
            "bits": whole("bits", bits),
            "block": whole("block", block),
            "rounding": rounding,
        }
        super().__init__("shared_scale", parameters, seed)
        assert isinstance(self._core, _core.SharedScale)
        self._kernels = self._core
        self.bits = bits
        self.block = block

    @property
    def most_ranks(self) -> int:
        """How many ranks' integers may be added."""
        return _MOST // _levels(self.bits)

    def integers(self, ranks: int) -> np.dtype[Any]:
        """In which the integers of so many ranks are added: int8 or int16. `ValueError` if in neither."""
        for dtype in _INTEGERS:
            if ranks * _levels(self.bits) <= np.iinfo(dtype).max:
                return dtype
        fitting = [bits for bits in range(2, self.bits) if ranks * _levels(bits) <= _MOST]
        instead = f"; {fitting[-1]} bits fit" if fitting else ""
        raise ValueError(
            f"integers of {self.bits} bits of {ranks} ranks do not fit int16 when they are added; those of "
            f"{self.most_ranks} ranks fit{instead}"
        )

    def summed_bytes(self, elements: int, ranks: int) -> int:
        """The bytes of an array of so many elements, integers and maxima, that are added over ranks."""
        return elements * self.integers(ranks).itemsize + -(-elements // self.block) * 4

    def _reduce_bucket(self, bucket: Group, residual: Floats | None, step: int) -> None:
        lefts = [None] * len(bucket.inputs) if residual is None else bucket.split(residual)
        if bucket.communicator.local_size == bucket.communicator.size:
            waiting = [None if left is None or not left.any() else left for left in lefts]
            bucket.scaled(waiting).allreduce()
            if residual is not None:
                residual[...] = 0
            return
        dtype, detail = self.integers(bucket.communicator.size), f"compression={self!r}"
        some = bucket.scaled()
        arrays = list(zip(some.inputs, lefts, strict=True))
        maxima = [self._kernels.maxima(x, left) for x, left in arrays]
        some.combine(maxima, f"maxima of {detail}", op=_core.Op.Max)
        # Where ranks rounded alike, what they leave out would add up.
        keys = (
            key_of(self._seed, step, f"{bucket.communicator.rank} {i} {name}")
            for i, name in enumerate(bucket.names)
        )
        sums = [
            self._kernels.quantise(x, most, dtype, left, key)
            for (x, left), most, key in zip(arrays, maxima, keys, strict=True)
        ]
        some.combine(sums, detail, dtype=_INTEGERS[dtype])
        factor = some.factors[1] / some.divisor
        for total, most, out in zip(sums, maxima, some.outputs, strict=True):
            self._kernels.dequantise(total, most, out, factor)

    def _traffic(
        self, shapes: Sequence[tuple[int, ...]], ranks: int, local_size: int, link: _core.Link
    ) -> Traffic:
        sizes = [math.prod(shape) for shape in shapes]
        summed = sum(self.summed_bytes(size, ranks * local_size) for size in sizes)
        bytes_sent = 2 * (ranks - 1) / ranks * summed / local_size
        # Maxima, then integers: two allreduces.
        return Traffic(bytes_sent, sum(sizes), sum(sizes), steps=4, overlaps=False)

    def _seconds(self, values: Floats) -> tuple[float, float]:
        residual = None if self.unbiased else np.zeros_like(values)
        start = time.perf_counter()
        maxima = self._kernels.maxima(values, residual)
        integers = self._kernels.quantise(values, maxima, self.integers(1), residual)
        between = time.perf_counter()
        self._kernels.dequantise(integers, maxima, values)
        return between - start, time.perf_counter() - between

    def __repr__(self) -> str:
        """With what is not as usual."""
        shown = f"bits={self.bits}"
        shown += f", block={self.block}" if self.block != 1024 else ""
        shown += ", rounding='stochastic'" if self.unbiased else ""
        shown += f", seed={self._seed}" if self._seed else ""
        return f"ronde.compression.shared_scale({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        _, parameters, seed = self._made_of
        return SharedScale, (*parameters.values(), seed), self._state()


def _levels(bits: int) -> int:
    """On either side of zero."""
    return (1 << (bits - 1)) - 1
