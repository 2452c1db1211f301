"""The residuals of this rank, by the names of parameters: what payloads have left out.

A residual is in units of what a rank contributes, scaled by `prescale_factor`: a sum of the residuals of all
ranks, divided by their number for an average, is what they would still add to the result. So they can go
to other ranks, of a job of another size too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._calls import communicator_of, factor_of
from ..process_set import ProcessSet
from ._group import Floats, Group, Parts

__all__ = ["Residuals", "load", "require_names", "states_of"]

State = Mapping[str, Any]
_KEYS = "where", "residuals", "unplaced", "used", "averaged"


class Where(NamedTuple):
    """A rank among others: `local_size` of them share memory with it."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @staticmethod
    def of(communicator: _core.Communicator) -> Where:
        return Where(
            communicator.rank, communicator.size, communicator.local_rank, communicator.local_size
        )


def require_names(names: list[str]) -> None:
    """Raises `ValueError` unless residuals can be kept under these names."""
    if not all(names):
        raise ValueError("error feedback needs a name, under which the residual is kept")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"two arrays of this call have the name {twice!r}, so they would share one residual"
        )


def states_of(state: Any, *further: str) -> list[State]:
    """Of one rank or of several. `TypeError` or `ValueError` for what `state_dict` does not give, which has
    `further` keys besides those of residuals."""
    if isinstance(state, (str, bytes)) or not isinstance(state, Iterable):
        raise TypeError(
            f"state must be what state_dict() gave, or a list of that of all ranks, not {state!r}"
        )
    states = [state] if isinstance(state, Mapping) else list(state)
    for each in states:
        if not isinstance(each, Mapping):
            raise TypeError(f"state must be a list of what state_dict() gave, and has {each!r}")
        missing = [key for key in (*_KEYS, *further) if key not in each]
        if missing:
            raise ValueError(
                f"state is not what state_dict() of this object gave: it has no {', '.join(missing)}"
            )
    return states


def load(
    state: State | Iterable[State],
    process_set: ProcessSet | None,
    load_own: Callable[[State], None],
    load_share: Callable[[list[State], float], None],
) -> State:
    """Takes from the states of an earlier job what belongs to this rank: its own where the job had as many
    ranks, and the sum of some where it had not, to be weighed by a factor where an average is taken.
    Returns one of the states, for what is the same in all."""
    here = Where.of(communicator_of(process_set))
    if isinstance(state, Mapping):
        rank, size, *_ = state["where"] or here
        if size != here.size:
            raise ValueError(
                f"this is the state of rank {rank} of {size}, and there are {here.size} ranks now: "
                "give the states of all ranks, in a list"
            )
        if rank != here.rank:
            raise ValueError(f"this is the state of rank {rank}, and this is rank {here.rank}")
        load_own(state)
        return state
    states = list(state)
    if not states:
        raise ValueError("there are no states to load")
    size = len(states)
    for number, each in enumerate(states):
        if each["where"] is not None and tuple(each["where"][:2]) != (number, size):
            rank, ranks, *_ = each["where"]
            raise ValueError(
                f"the states of all ranks are needed, in their order: number {number} of {size} is "
                f"that of rank {rank} of {ranks}"
            )
    if size == here.size:
        load_own(states[here.rank])
    else:
        load_share(states[here.rank :: here.size], here.size / size)
    return states[0]


class Use(NamedTuple):
    """How a vector of residuals is used: one that is used otherwise from then on has to be sent first."""

    where: Where
    whole: bool  # by this rank; otherwise ranks that share memory have a part each, or none
    parts: Parts


class Residuals:
    def __init__(self) -> None:
        self._left: dict[str, Floats] = {}  # a part of a vector, once there is one
        self._vectors: dict[Parts, Floats] = {}
        self._used: dict[str, Use] = {}  # the latest use
        # To be added to the next contribution: residuals that belong to no vector any more, because this
        # rank sends other parts of it than before, or none.
        self._unplaced: dict[str, Floats] = {}
        self._averaged: dict[str, bool] = {}
        self._where: Where | None = None  # when last used

    def read(self, name: str) -> Floats:
        if name not in self._left:
            known = ", ".join(map(repr, self._left)) or "no arrays yet"
            raise KeyError(f"name: {name!r} has not been reduced; there are {known}")
        left = self._left[name]
        more = self._unplaced.get(name)
        return left.copy() if more is None else left + more

    def norms(self) -> dict[str, float]:
        return {name: float(np.linalg.norm(self.read(name))) for name in self._left}

    def rescale(self, factor: float) -> None:
        factor = factor_of("factor", factor)
        for kept in (*self._left.values(), *self._unplaced.values()):
            kept *= np.float32(factor)

    def of(self, group: Group, *, per_rank: bool = False) -> tuple[Floats, list[Floats | None]]:
        """A vector of the residuals of the group's arrays, one after another, to be updated; and for each
        array what is to be added to this rank's contribution now, or None.

        `per_rank`: each rank uses all of its vector. Otherwise ranks that share memory have a part each.
        """
        self._where = Where.of(group.communicator)
        parts = group.parts
        names = self._checked(parts)
        for name in names:
            self._averaged[name] = group.op is _core.Op.Average
        whole = per_rank or (self._where.local_size == 1 and self._where.size > 1)
        use = Use(self._where, whole, parts)
        if parts not in self._vectors or any(self._used[name] != use for name in names):
            self._place(use)
        vector = self._vectors[parts]
        added = [self._unplaced.pop(name, None) for name in names]
        if whole:
            for name, more in zip(names, added, strict=True):
                if more is not None:
                    self._left[name] += more
            added = [None] * len(names)
        return vector, added

    def _checked(self, parts: Parts) -> list[str]:
        names = [name for name, _ in parts]
        require_names(names)
        for name, elements in parts:
            for kept in (self._left.get(name), self._unplaced.get(name)):
                if kept is not None and kept.size != elements:
                    raise ValueError(
                        f"the residual of {name!r} has {kept.size} elements, the array {elements}"
                    )
        return names

    def taken(self, group: Group) -> list[Floats | None]:
        """All that is left of the group's arrays, to be added to this rank's contribution now, or None."""
        found: list[Floats | None] = []
        for name, _ in group.parts:
            if name not in self._left:
                found.append(None)
                continue
            left = self.read(name)
            self._left[name][...] = 0
            self._unplaced.pop(name, None)
            found.append(left if left.any() else None)
        return found

    def _place(self, use: Use) -> None:
        """Makes a vector, whose names leave those in which they were."""
        names = {name for name, _ in use.parts}
        for known in [each for each in self._vectors if names & {name for name, _ in each}]:
            del self._vectors[known]
        vector: Floats = np.zeros(sum(elements for _, elements in use.parts), np.float32)
        offset = 0
        for name, elements in use.parts:
            target = vector[offset : offset + elements]
            before = self._left.get(name)
            if before is not None:
                if use.whole or self._used.get(name) == use:
                    target[...] = before
                else:
                    self._unplaced[name] = before + self._unplaced.get(name, np.float32(0))
            self._left[name], self._used[name] = target, use
            offset += elements
        self._vectors[use.parts] = vector

    def state_dict(self) -> dict[str, Any]:
        return {
            "where": self._where,
            "residuals": {name: left.copy() for name, left in self._left.items()},
            "unplaced": {name: left.copy() for name, left in self._unplaced.items()},
            "used": dict(self._used),
            "averaged": dict(self._averaged),
        }

    def load(self, state: State) -> None:
        """What `state_dict` gave on this rank of a job of the same size."""
        self.__init__()  # type: ignore[misc]
        self._left = {name: np.array(left, np.float32) for name, left in state["residuals"].items()}
        self._unplaced = {name: np.array(x, np.float32) for name, x in state["unplaced"].items()}
        self._used = {
            name: Use(Where(*where), whole, tuple((str(n), int(e)) for n, e in parts))
            for name, (where, whole, parts) in state["used"].items()
        }
        self._averaged = dict(state["averaged"])
        self._where = None if state["where"] is None else Where(*state["where"])

    # Parts of vectors would be copied apart from them.
    __getstate__ = state_dict
    __setstate__ = load

    def load_share(self, states: Iterable[State], scale: float) -> None:
        """The sum of what several ranks have kept. `scale`: of what is averaged."""
        self.__init__()  # type: ignore[misc]
        for state in states:
            self._averaged.update(state["averaged"])
            for kept in (state["residuals"], state["unplaced"]):
                for name, left in kept.items():
                    factor = np.float32(scale if state["averaged"].get(name) else 1.0)
                    before = self._unplaced.get(name, np.float32(0))
                    self._unplaced[name] = before + factor * np.asarray(left, np.float32)
        self._left = {name: np.zeros_like(left) for name, left in self._unplaced.items()}
