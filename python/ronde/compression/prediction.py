"""What an allreduce would take with each compressor, before it is tried."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import _core
from .codecs import Compressor

__all__ = ["Prediction", "predict"]

SAMPLE = 1 << 18  # elements on which a codec is timed
REPEATS = 3


class Prediction(NamedTuple):
    """Of one rank, in bytes and seconds."""

    wire_bytes: float  # that it sends, and receives
    wire: float
    codec: float
    seconds: float


@lru_cache
def codec_seconds(compressor: Compressor) -> tuple[float, float]:
    """Seconds an element to encode with a residual, and to decode: of one thread of this machine, now."""
    core = compressor._core
    values = np.random.default_rng(0).standard_normal(SAMPLE, np.float32)
    residual = None if compressor.unbiased else np.zeros_like(values)
    best = [float("inf"), float("inf")]
    for _ in range(REPEATS):
        start = time.perf_counter()
        payload = core.encode(values, residual, 0, 0)
        between = time.perf_counter()
        core.decode(payload, values, False)
        end = time.perf_counter()
        best = [min(best[0], between - start), min(best[1], end - between)]
        values[...] = np.random.default_rng(1).standard_normal(SAMPLE, np.float32)
    return best[0] / SAMPLE, best[1] / SAMPLE


def predict(
    compressor: Compressor | None,
    elements: int,
    ranks: int,
    link: Mapping[str, float],
    speeds: tuple[float, float] | None = None,
) -> Prediction:
    """An allreduce of float32 between `ranks` that share no memory; exact for None.

    `link`: alpha, overhead, beta and gamma, in seconds and seconds per byte. `speeds`: those of the codec,
    if they are known.
    """
    if ranks == 1 or elements == 0:
        return Prediction(0.0, 0.0, 0.0, 0.0)
    share = (ranks - 1) / ranks
    if compressor is None:
        counts = [elements // ranks + (rank < elements % ranks) for rank in range(ranks)]
        _, cost = _core.candidates("allreduce", counts, 0, 4, **link)[0]
        return Prediction(cost.sent * 4.0, cost.seconds, 0.0, cost.seconds)
    payload = compressor.payload_bytes(elements)
    sums = payload
    if compressor._core.keeps_sums:  # which hold what all ranks have sent
        sums = min(ranks * payload, 4 * elements)
    wire_bytes = share * (payload + sums)
    wire = 2 * link["alpha"] + 2 * (ranks - 2) * link["overhead"] + wire_bytes * link["beta"]
    encode, decode = speeds or codec_seconds(compressor)
    # A rank encodes parts for the others and the sum of its own, and decodes the others' parts of its
    # own slice and all sums.
    codec = elements * (encode + (1 + share) * decode)
    # The shorter of both hides behind the longer, but for the first and the last segments.
    return Prediction(wire_bytes, wire, codec, max(wire, codec) + min(wire, codec) / 4)
