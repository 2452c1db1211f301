"""The residuals of this rank, by the names of parameters: what payloads have left out.

The core keeps them, and csrc/methods/residuals.h says how. They are in units of what a rank contributes: so
they can go to other ranks, of a job of another size too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._calls import communicator_of, factor_of
from ..process_set import ProcessSet
from ._method import Floats, Parts

__all__ = ["Residuals", "load", "states_of"]

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
        self.core = _core.Residuals()

    def read(self, name: str) -> Floats:
        found = self.core.read(name)
        if found is None:
            known = ", ".join(map(repr, self.core.names)) or "no arrays yet"
            raise KeyError(f"name: {name!r} has not been reduced; there are {known}")
        return found

    def norms(self) -> dict[str, float]:
        return {name: float(np.linalg.norm(self.read(name))) for name in self.core.names}

    def rescale(self, factor: float) -> None:
        self.core.rescale(factor_of("factor", factor))

    def state_dict(self) -> dict[str, Any]:
        state = self.core.state()
        where = state["where"]
        used = {
            name: Use(Where(*place), whole, tuple(map(tuple, parts)))
            for name, (place, whole, parts) in state["used"].items()
        }
        return {**state, "where": None if where is None else Where(*where), "used": used}

    def load(self, state: State) -> None:
        """What `state_dict` gave on this rank of a job of the same size."""
        self.core.load({key: state[key] for key in _KEYS})

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: State) -> None:
        self.__init__()  # type: ignore[misc]
        self.load(state)

    def load_share(self, states: Iterable[State], scale: float) -> None:
        """The sum of what several ranks have kept. `scale`: of what is averaged."""
        unplaced: dict[str, Floats] = {}
        averaged: dict[str, bool] = {}
        for state in states:
            averaged.update(state["averaged"])
            for kept in (state["residuals"], state["unplaced"]):
                for name, left in kept.items():
                    factor = np.float32(scale if state["averaged"].get(name) else 1.0)
                    before = unplaced.get(name, np.float32(0))
                    unplaced[name] = before + factor * np.asarray(left, np.float32)
        residuals = {name: np.zeros_like(left) for name, left in unplaced.items()}
        self.core.load(
            {
                "where": None,
                "residuals": residuals,
                "unplaced": unplaced,
                "used": {},
                "averaged": averaged,
            }
        )
