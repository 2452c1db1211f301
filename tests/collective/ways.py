"""The ways that a collective can take: an algorithm of its own by messages, or through memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from ronde import _core
from threads import WORLDS, Rank, run_all

COUNTS = (0, 1, 3, 1000, 8192)
LONG = 80_001  # through memory: several chunks of each stage, the last one short


def algorithms(collective: str) -> list[tuple[str, bool]]:
    return [(name, any_size) for c, name, _, any_size in _core.algorithms() if c == collective]


def worlds(any_size: bool) -> list[int]:
    return [size for size in WORLDS if any_size or size & (size - 1) == 0]


# Ways through memory: arrays of any kind, arrays that all ranks can reach, and some of each.
PLACES = ("plain", "shared", "mixed")


@dataclass(frozen=True)
class Way:
    """By messages and an algorithm, or through memory."""

    algorithm: str = ""
    any_size: bool = True
    place: str = ""

    def run(self, program: Callable[[Rank], None]) -> None:
        for size in worlds(self.any_size):
            run_all(size, program, shared=bool(self.place))

    @property
    def counts(self) -> tuple[int, ...]:
        return (*COUNTS, LONG) if self.place else COUNTS

    def put(self, rank: int, array: np.ndarray) -> np.ndarray:
        """The array, where this way wants it."""
        shared = self.place == "shared" or (self.place == "mixed" and rank % 2 == 0)
        if not shared:
            return array
        copy = _core.shared_array(array.nbytes).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def __str__(self) -> str:
        return self.algorithm or f"memory, {self.place}"


def case(collective: str) -> pytest.MarkDecorator:
    ways = [Way(name, any_size) for name, any_size in algorithms(collective)]
    ways += [Way(place=place) for place in PLACES]
    return pytest.mark.parametrize("way", ways, ids=str)
