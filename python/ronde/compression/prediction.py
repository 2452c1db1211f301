"""What an allreduce would take with each compressor, before it is tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .. import _core
from .codecs import Predictable

__all__ = ["Prediction", "codec_seconds", "predict"]

SAMPLE = 512, 512  # on which a codec is timed
REPEATS = 3


class Prediction(NamedTuple):
    """Of one rank, in bytes and seconds."""

    wire_bytes: float  # that it sends, and receives
    wire: float
    codec: float
    seconds: float


_timed: dict[str, tuple[float, float]] = {}


def codec_seconds(codec: Predictable) -> tuple[float, float]:
    """Seconds an element to encode with a residual, and to decode: of one thread of this machine, when it
    was first asked for."""
    name = repr(codec)
    if name not in _timed:
        _timed[name] = _time(codec)
    return _timed[name]


def _time(codec: Predictable) -> tuple[float, float]:
    best = [math.inf, math.inf]
    for seed in range(REPEATS):
        values = np.random.default_rng(seed).standard_normal(SAMPLE, np.float32)
        best = [min(pair) for pair in zip(best, codec._seconds(values), strict=True)]
    return best[0] / math.prod(SAMPLE), best[1] / math.prod(SAMPLE)


def predict(
    codec: Predictable | None,
    shapes: Sequence[tuple[int, ...]],
    ranks: int,
    link: Mapping[str, float],
    *,
    local_size: int = 1,
    speeds: tuple[float, float] | None = None,
) -> Prediction:
    """An allreduce of arrays of float32, between `ranks` that share no memory; exact for None.

    `link`: alpha, overhead, beta and gamma, in seconds and seconds per byte. `local_size`: ranks that reduce
    in shared memory before. `speeds`: those of the codec, if they are known.
    """
    elements = sum(map(math.prod, shapes)) // local_size
    if ranks == 1 or elements == 0:
        return Prediction(0.0, 0.0, 0.0, 0.0)
    if codec is None:
        counts = [elements // ranks + (rank < elements % ranks) for rank in range(ranks)]
        _, cost = _core.candidates("allreduce", counts, 0, 4, **link)[0]
        return Prediction(cost.sent * 4.0, cost.seconds, 0.0, cost.seconds)
    traffic = codec._traffic(shapes, ranks, local_size, _core.Link(**link))
    wire = traffic.wire_bytes * link["beta"]
    wire += traffic.steps * (link["alpha"] + (ranks - 2) * link["overhead"])
    encode, decode = speeds or codec_seconds(codec)
    work = traffic.encoded * encode + traffic.decoded * decode
    if not traffic.overlaps:
        return Prediction(traffic.wire_bytes, wire, work, wire + work)
    # The shorter of both hides behind the longer, but for the first and the last segments.
    return Prediction(traffic.wire_bytes, wire, work, max(wire, work) + min(wire, work) / 4)
