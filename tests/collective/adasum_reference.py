"""Adasum by its definition, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np


def adasum_of_two(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The formula of the paper."""
    if not a.any() or not b.any():
        return a + b
    product = float(a @ b)
    return (1 - product / (2 * float(a @ a))) * a + (1 - product / (2 * float(b @ b))) * b


# By which tree: numbers are ranks. Neighbours are merged; of 5, 3 and 7 ranks the first ones before.
TREES: dict[int, Any] = {
    1: 0,
    2: (0, 1),
    3: ((0, 1), 2),
    4: ((0, 1), (2, 3)),
    5: (((0, 1), 2), (3, 4)),
    6: (((0, 1), (2, 3)), (4, 5)),
    7: (((0, 1), (2, 3)), ((4, 5), 6)),
    8: (((0, 1), (2, 3)), ((4, 5), (6, 7))),
}


def adasum(gradients: list[np.ndarray]) -> np.ndarray:
    """In double precision."""

    def value(tree: Any) -> np.ndarray:
        if isinstance(tree, int):
            return gradients[tree].astype(np.float64)
        return adasum_of_two(*map(value, tree))

    return value(TREES[len(gradients)])
