"""Integers of one step for all ranks, which are added as they are (csrc/methods/integer_sums.h)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from ._method import Floats
from .codecs import Compressor, Traffic, whole

__all__ = ["SharedScale"]

_MOST = np.iinfo(np.int16).max


class SharedScale(Compressor):
    """Integers of a few bits that are added as they are, with one step for all ranks.

    They travel as int8 where the sum over all ranks fits, as int16 otherwise; `ValueError` where more than
    `most_ranks` are to be added. A payload by itself, that of `compress`, has steps of its own and int8.
    """

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
        return np.dtype(self._kernels.integer(ranks).name)

    def summed_bytes(self, elements: int, ranks: int) -> int:
        """The bytes of an array of so many elements, integers and maxima, that are added over ranks."""
        return elements * self.integers(ranks).itemsize + -(-elements // self.block) * 4

    def _method(self) -> _core.Codec:
        assert isinstance(self._core, _core.SharedScale)
        return _core.IntegerSums(self._core, str(self._seed))

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
