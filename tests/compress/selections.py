"""What compressors that send some of the values have in common."""

from __future__ import annotations

from typing import Any

import numpy as np


def share(ratio: float, count: int) -> int:
    """How many values are sent."""
    return min(count, max(1, round(ratio * count)))


def decode(compressor: Any, payload: Any, count: int) -> Any:
    """Into memory that held something else."""
    out = np.full(count, 7, np.float32)
    compressor.decode(payload, out)
    return out
