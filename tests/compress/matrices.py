"""Matrices for the tests of low rank, and their shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

EPSILON = 2.0**-24  # of rounding to float32

# Around packets, rows of 16, what is done at once, and the chunks of columns.
ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 33)
COLUMNS = (1, 2, 15, 16, 17, 31, 64, 65, 130, 1023, 1024, 1025, 2049, 2100)

rows = st.one_of(st.sampled_from(ROWS), st.integers(1, 100))
columns = st.one_of(st.sampled_from(COLUMNS), st.integers(1, 100))
seeds = st.integers(0, 2**20)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def wide(x: Any) -> Any:
    return x.astype(np.float64)
