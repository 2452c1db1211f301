"""What tests wrap in a DistributedOptimizer."""

from __future__ import annotations

from typing import Any

import numpy as np


class Stepper:
    """Remembers what it was given."""

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = rate
        self.given: list[Any] = []

    def step(self, grads: Any, *further: Any, **named: Any) -> str:
        self.given.append(grads)
        self.further = further, named
        return "stepped"


def sgd(params: np.ndarray, grads: np.ndarray, rate: float = 1.0) -> np.ndarray:
    """An optimizer that is a function."""
    return params - rate * grads


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
