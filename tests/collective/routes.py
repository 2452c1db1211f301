"""The routes that a collective can take: over the network by an algorithm, or in shared memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from ronde import _core
from threads import WORLDS, Rank, run_all

COUNTS = (0, 1, 3, 1000, 8192)
LONG = 80_001  # in shared memory: several chunks of each stage, the last one short


def algorithms(collective: str) -> list[tuple[str, bool]]:
    return [(name, any_size) for c, name, _, any_size in _core.algorithms() if c == collective]


def worlds(any_size: bool) -> list[int]:
    return [size for size in WORLDS if any_size or size & (size - 1) == 0]


# In shared memory: arrays of any kind, arrays that all ranks can reach, and some of each.
MEMORIES = ("plain", "shared", "mixed")


@dataclass(frozen=True)
class Route:
    """Over the network by an algorithm, or in shared memory."""

    algorithm: str = ""
    any_size: bool = True
    memory: str = ""

    def run(self, program: Callable[[Rank], None]) -> None:
        for size in worlds(self.any_size):
            run_all(size, program, shared=bool(self.memory))

    @property
    def counts(self) -> tuple[int, ...]:
        return (*COUNTS, LONG) if self.memory else COUNTS

    def put(self, rank: int, array: np.ndarray) -> np.ndarray:
        """The array, where this route wants it."""
        shared = self.memory == "shared" or (self.memory == "mixed" and rank % 2 == 0)
        if not shared:
            return array
        copy = _core.shared_array(array.nbytes).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def __str__(self) -> str:
        return self.algorithm or f"memory, {self.memory}"


def case(collective: str) -> pytest.MarkDecorator:
    routes = [Route(name, any_size) for name, any_size in algorithms(collective)]
    routes += [Route(memory=memory) for memory in MEMORIES]
    return pytest.mark.parametrize("route", routes, ids=str)
