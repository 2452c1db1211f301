"""What a library has to say and do to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..cells import DTYPES, Cell

__all__ = ["Buffers", "Operation", "Peer"]

Array = Any  # numpy.ndarray; what `Peer.empty` makes may be a library's own


class Buffers(Protocol):
    """The vectors of a cell, in as many copies as calls take in turn."""

    inputs: list[Array]

    def outputs(self) -> list[Array]:
        """New ones, of the length of the result."""


@dataclass(frozen=True)
class Operation:
    """One way to do a collective: a call for each copy, to be timed as it is."""

    inputs: list[Array]
    calls: Sequence[Callable[[], Any]]
    outputs: list[Array] | None = None  # None: the calls return the result


class Peer(ABC):
    """A library, connected on all ranks."""

    rank: int
    size: int
    about: dict[str, str]  # for the header: "library" is the name and version of a peer

    @abstractmethod
    def gather(self, numbers: Sequence[float]) -> Any:
        """The numbers of all ranks, as float64 of shape (size, len(numbers)); synchronises."""

    def empty(self, count: int, cell: Cell) -> Array:
        """A vector for the elements of a cell."""
        return np.empty(count, DTYPES[cell.dtype])

    def write(self, buffer: Array, values: Array) -> None:
        """Fills a vector."""
        buffer[...] = values

    def array(self, result: Any) -> Array:
        """What a call returned, or the buffer that holds the result, as an array of NumPy."""
        return result

    @abstractmethod
    def why_not(self, cell: Cell) -> str:
        """Why the library cannot do a cell; empty if it can. The same on all ranks."""

    def bytes_sent(self) -> int:
        """What this rank has sent to other machines so far; always 0 if that is not known."""
        return 0

    @abstractmethod
    def operations(self, cell: Cell, buffers: Buffers) -> Iterable[Operation]:
        """The ways to do it, of which the fastest is measured. The same on all ranks."""
