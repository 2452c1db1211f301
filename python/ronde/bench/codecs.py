"""Compressors by themselves: how fast they encode and decode, how many bytes they save, and what is lost.

Every rank compresses values of its own, all at the same time. A round times, one after the other,

    pass        out += values: to read two vectors and write one is what encoding with a residual does at
                least
    encode      without a residual
    feedback    with one: values + residual are encoded, the residual becomes what is left out. When the
                round begins it is normal and half as large as the values
    touch       out *= 0.5: to read and write one vector is what decoding with addition does at least
    decode      out = decoded
    add         out += decoded

A time is that of the slowest rank, and shares are taken within a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from .. import _core
from ..compression import Compressor
from . import compressors
from .timing import World

__all__ = ["DISTRIBUTIONS", "CodecRow", "measure"]

_CALLS = ("pass", "encode", "feedback", "touch", "decode", "add")
_TIMED_SECONDS = 1e-3  # of repeated calls, at least
_BLOCK = 1 << 20  # elements that are looked at together
_DRAWS = 32  # of random numbers, for the bias

Floats = Any  # numpy.ndarray of float32


@dataclass(frozen=True)
class CodecRow:
    """What was measured of a compressor. Times are seconds."""

    compressor: str
    bytes: int  # of the values of a rank, float32
    ranks: int
    payload: float  # bytes, the mean over the ranks
    unbiased: bool  # whether the compressor says so
    error: float  # of decoded values: root of the mean square, over that of the values
    bias: float  # by how much decoded values are too large on average, as a share; -1 for zeros
    bias_error: float  # its standard error, over draws of random numbers; 0 where there are none
    times: dict[str, list[float]] = field(default_factory=dict)  # of each round

    @property
    def fewer(self) -> float:
        """Bytes of values for a byte of payload."""
        return self.bytes / self.payload

    def speed(self, call: str) -> float:
        """GB/s of values: the median round."""
        return self.bytes / median(self.times[call]) / 1e9

    def shares(self, bound: str, call: str) -> list[float]:
        """The time of the pass over memory over that of the call, round by round."""
        pairs = zip(self.times[bound], self.times[call], strict=True)
        return [low / own for low, own in pairs]

    def over(self, link: float) -> float:
        """GB/s of values that come through a link of so many GB/s: the slower of the link, which carries
        payloads, and of a core that encodes and then decodes and adds."""
        encode = self.speed("encode" if self.unbiased else "feedback")
        return min(link * self.fewer, 1 / (1 / encode + 1 / self.speed("add")))


def _laplace(random: np.random.Generator, count: int) -> Floats:
    values = random.standard_exponential(count, np.float32)
    values -= random.standard_exponential(count, np.float32)
    values *= np.float32(math.sqrt(0.5))
    return values


def _uniform(random: np.random.Generator, count: int) -> Floats:
    values = random.random(count, np.float32)
    values -= np.float32(0.5)
    values *= np.float32(math.sqrt(12))
    return values


# All of mean 0 and variance 1.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda random, count: random.standard_normal(count, np.float32),
    "laplace": _laplace,
    "uniform": _uniform,
}


def measure(
    world: World,
    names: Sequence[str],
    values: Floats,
    rounds: int,
    report: Callable[[CodecRow], None],
) -> None:
    """Measures compressors, named as `compressors.make` takes them, on the values of each rank; rank 0
    reports each row when it is there."""
    residual, out = np.empty_like(values), np.empty_like(values)
    before = DISTRIBUTIONS["normal"](np.random.default_rng([world.rank, 1]), values.size)
    before *= np.float32(0.5)
    for name in names:
        compressor = compressors.make(name)
        payload, error = _round_trip(compressor, values, out)
        bias = _bias(compressor, values[:_BLOCK])
        means = np.mean(world.gather([payload, error, *bias]), axis=0)
        calls = _calls(compressor, values, residual, out)
        times = _times(world, calls, partial(np.copyto, residual, before), rounds)
        payload, error, shift, spread = means.tolist()
        spread /= math.sqrt(world.size)
        unbiased = compressor.unbiased
        row = CodecRow(
            name, values.nbytes, world.size, payload, unbiased, error, shift, spread, times
        )
        if world.rank == 0:
            report(row)


def _round_trip(compressor: Compressor, values: Floats, out: Floats) -> tuple[int, float]:
    """The bytes of the payload, and the error."""
    payload, _ = compressor.compress(values)
    compressor._core.decode(payload, out)
    wrong = whole = 0.0
    for start in range(0, values.size, _BLOCK):
        exact = values[start : start + _BLOCK].astype(np.float64)
        wrong += float(np.square(out[start : start + _BLOCK] - exact).sum())
        whole += float(np.square(exact).sum())
    return payload.size, math.sqrt(wrong / whole)


def _bias(compressor: Compressor, values: Floats) -> tuple[float, float]:
    """The projection of the error on the values, and its standard error."""
    exact = values.astype(np.float64)
    square = float(exact @ exact)
    # Each call draws random numbers of its own.
    draws = [compressor.decompress(*compressor.compress(values)) for _ in range(_DRAWS)]
    shifts = np.array([float((draw - exact) @ exact) / square for draw in draws])
    spread = float(shifts.std(ddof=1)) if shifts.min() < shifts.max() else 0.0
    return float(shifts.mean()), spread / math.sqrt(_DRAWS)


def _calls(
    compressor: Compressor, values: Floats, residual: Floats, out: Floats
) -> dict[str, Callable[[], object]]:
    core, add, float32 = compressor._core, _core.ReduceOp.sum, _core.DType.float32
    payload = core.encode(values)
    return {
        "pass": lambda: _core.reduce_many(add, float32, [out], [out, values]),
        "encode": lambda: core.encode(values),
        "feedback": lambda: core.encode(values, residual),
        "touch": lambda: _core.reduce_many(add, float32, [out], [out], prescale=0.5),
        "decode": lambda: core.decode(payload, out),
        "add": lambda: core.decode(payload, out, add=True),
    }


def _times(
    world: World,
    calls: dict[str, Callable[[], object]],
    begin: Callable[[], object],
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds of each call, on the slowest rank. Rounds begin with `begin`, which is not timed."""
    repeated = dict.fromkeys(_CALLS, 1)
    begin()
    warm = _round(world, calls, repeated)
    repeated = {name: math.ceil(_TIMED_SECONDS / time) for name, time in warm.items()}
    found = []
    for _ in range(rounds):
        begin()
        found.append(_round(world, calls, repeated))
    return {name: [each[name] for each in found] for name in _CALLS}


def _round(
    world: World, calls: dict[str, Callable[[], object]], repeated: dict[str, int]
) -> dict[str, float]:
    mine = []
    for name in _CALLS:
        call, number = calls[name], repeated[name]
        world.gather([0.0])  # all ranks do the same at the same time
        start = perf_counter()
        for _ in range(number):
            call()
        mine.append((perf_counter() - start) / number)
    slowest = np.max(world.gather(mine), axis=0)
    return dict(zip(_CALLS, slowest.tolist(), strict=True))
