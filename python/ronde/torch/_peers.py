"""The optimizers of one process set, which agree on whose gradients are reduced at the end of a pass.

A loss may have gradients of several optimizers, and on another rank of fewer. All ranks then reduce those of
each optimizer that has some on any rank, in the order in which the optimizers were made.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from .. import handles
from ..errors import RondeError
from ..process_set import ProcessSet
from ..reductions import Max

if TYPE_CHECKING:
    from ._reducer import Reducer

__all__ = ["Peers", "peers_of"]


class Peers:
    """Ranks make the optimizers of a process set in one order, so that numbers say which is which."""

    def __init__(self) -> None:
        self.count = 0  # also of those that are gone by now
        self._alive: weakref.WeakValueDictionary[int, Reducer] = weakref.WeakValueDictionary()

    def number(self) -> int:
        """Of one more optimizer."""
        self.count += 1
        return self.count - 1

    def enter(self, number: int, reducer: Reducer) -> None:
        """Its gradients are reduced with those of the others from now on."""
        self._alive[number] = reducer

    def reduce(self, reducer: Reducer) -> None:
        """Reduces the gradients of this one, and of those that have gradients on any rank."""
        if self.count == 1:
            reducer.reduce()
            return
        alive = dict(self._alive)
        wanted = np.zeros((2, self.count), np.uint8)
        for number, each in alive.items():
            wanted[0, number] = each is reducer or each.is_ready()
        wanted[1] = [number not in alive for number in range(self.count)]
        process_set = reducer.reduction.process_set
        name = "which DistributedOptimizers have gradients"
        handles.allreduce_async_(wanted, Max, name, process_set=process_set).wait()
        is_gone = np.flatnonzero(wanted[0] & wanted[1])
        if is_gone.size:
            raise RondeError(
                f"DistributedOptimizer {is_gone[0]} has gradients on a rank, and is gone on another: "
                "make and delete optimizers on all ranks alike"
            )
        for place in np.flatnonzero(wanted[0]):
            alive[int(place)].reduce()


_of_sets: weakref.WeakKeyDictionary[ProcessSet, Peers] = weakref.WeakKeyDictionary()


def peers_of(process_set: ProcessSet) -> Peers:
    return _of_sets.setdefault(process_set, Peers())
