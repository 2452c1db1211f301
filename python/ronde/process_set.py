"""Process sets: collectives among some of the ranks."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import RondeError

if TYPE_CHECKING:
    from . import _core

__all__ = ["ProcessSet", "global_process_set"]


class ProcessSet:
    """Some of the ranks, for the argument `process_set` of the collectives.

    It can be used after `ronde.add_process_set`, or after `ronde.init(process_sets=[...])`.

    Args:
        ranks: ranks of the job. They are sorted, and a rank's position among them is its rank in
            the set.

    Raises:
        ValueError: `ranks` is empty, or has a number twice or a negative one.
        TypeError: `ranks` are not whole numbers.
    """

    def __init__(self, ranks: Iterable[int]) -> None:
        if isinstance(ranks, int):
            raise TypeError(f"ranks: a ProcessSet needs a list of ranks, as [{ranks}], not {ranks}")
        try:
            given = [operator.index(rank) for rank in ranks]
        except TypeError:
            raise TypeError(f"ranks must be a list of whole numbers, not {ranks!r}") from None
        if any(rank < 0 for rank in given):
            raise ValueError(f"ranks must be whole numbers from 0 on, not {given}")
        if not given:
            raise ValueError("a process set needs at least one rank")
        if len(set(given)) != len(given):
            raise ValueError(f"a rank occurs twice in {given}")
        self.ranks: list[int] = sorted(given)
        self.process_set_id: int | None = None
        self._communicator: _core.Communicator | None = None

    def included(self) -> bool:
        """Return whether this process is a member."""
        self._require()
        return self._communicator is not None

    def rank(self) -> int:
        """Return this process' rank in the set; `ValueError` if it is not a member."""
        return self._member().rank

    def size(self) -> int:
        """Return the number of ranks in the set."""
        self._require()
        return len(self.ranks)

    def _require(self) -> None:
        if self.process_set_id is None:
            how = "ronde.init()" if self is global_process_set else "ronde.add_process_set()"
            raise RondeError(f"this process set is not in use; call {how} first")

    def _member(self) -> _core.Communicator:
        communicator = self._communicator
        if communicator is None:
            self._require()  # after the above: another thread may detach the set
            raise ValueError(
                f"this rank is not a member of process set {self.process_set_id} {self.ranks}"
            )
        return communicator

    def _attach(self, set_id: int, communicator: _core.Communicator | None) -> None:
        self.process_set_id, self._communicator = set_id, communicator

    def _detach(self) -> None:
        self.process_set_id = self._communicator = None

    def __repr__(self) -> str:
        return f"ProcessSet(ranks={self.ranks}, process_set_id={self.process_set_id})"


global_process_set = ProcessSet([0])
"""All ranks. Its `ranks` are set by `ronde.init`."""
