"""Vectors of every kind that a compressor may meet."""

from __future__ import annotations

from typing import Any

import numpy as np

# Around lanes, groups, and the blocks of all presets.
COUNTS = (0, 1, 2, 15, 16, 17, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 2500)
FINITE = ("normal", "uniform", "constant", "zero", "denormal", "tiny", "huge", "scales", "sparse")


def vector(kind: str, count: int, seed: int = 0) -> Any:
    """float32 of that kind: all of FINITE, or "any" for random bits with NaN and infinities."""
    random = np.random.default_rng([seed, count])
    normal = random.standard_normal(count)
    limits = np.finfo(np.float32)
    if kind == "any":
        return random.integers(0, 2**32, count, np.uint32).view(np.float32)
    values = {
        "normal": lambda: normal,
        "uniform": lambda: random.uniform(-1, 1, count),
        "constant": lambda: np.full(count, random.standard_normal()),
        "zero": lambda: np.where(normal < 0, -0.0, 0.0),
        "denormal": lambda: normal * limits.tiny / 64,
        "tiny": lambda: normal * limits.tiny * 16,
        "huge": lambda: random.choice([-1.0, -0.3, 0.999, 1.0], count) * limits.max,
        "scales": lambda: normal * 10.0 ** random.integers(-30, 30, count),
        "sparse": lambda: normal * (random.random(count) < 0.01),
    }[kind]()
    return values.astype(np.float32)
