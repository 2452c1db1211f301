"""Gradients that are reduced while the backward pass still computes others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .arrays import view
from .errors import RondeError
from .handles import Handle

__all__ = ["Ready"]

Submit = Callable[[Any, Any], Handle[Any]]  # of a label and an array


class Ready:
    """Those of one step, from `DistributedOptimizer.ready` to its update."""

    def __init__(self) -> None:
        self.in_use = False  # whether anything has ever been ready
        # By label: the array and its reduction.
        self._given: dict[Any, tuple[Any, Handle[Any]]] = {}

    def __contains__(self, label: Any) -> bool:
        return label in self._given

    def add(self, label: Any, given: Any, handle: Handle[Any]) -> None:
        self.in_use = True
        self._given[label] = given, handle

    def require_new(self, label: Any) -> None:
        if label in self._given:
            raise ValueError(
                f"the gradient of {label!r} is ready already: an update comes first, or discard_ready()"
            )

    def require_same(self, gradients: Sequence[tuple[Any, Any]]) -> None:
        """Labels and arrays of an update. Raises `ValueError` if they are not what was ready."""
        arrays = dict(gradients)
        for label, (given, _) in self._given.items():
            if label not in arrays:
                raise ValueError(
                    f"the gradient of {label!r} was ready, and grads has none; it has those of "
                    + ", ".join(map(repr, arrays))
                )
            if not _is_same(arrays[label], given):
                raise ValueError(
                    f"grads[{label!r}] is not the array that ready() was given: what is done to a gradient "
                    "after that would be lost"
                )

    def finish(self, gradients: Sequence[tuple[Any, Any]], submit: Submit) -> list[Any]:
        """The reduced arrays, once all are: those that are not under way are submitted now."""
        for label, array in gradients:
            if label not in self._given:
                self.add(label, array, submit(label, array))
        given, self._given = self._given, {}
        return _results([given[label][1] for label, _ in gradients])

    def discard(self) -> None:
        """Waits for what is under way, and forgets it."""
        given, self._given = self._given, {}
        _results([handle for _, handle in given.values()])

    def __getstate__(self) -> dict[str, Any]:
        if self._given:
            raise RondeError(
                "gradients are ready: update before the DistributedOptimizer is copied or pickled"
            )
        return {"in_use": self.in_use, "_given": {}}  # a copy has its own


def _results(handles: Sequence[Handle[Any]]) -> list[Any]:
    """What each gives, once all have ended; raises the first error."""
    results: list[Any] = []
    error: Exception | None = None
    for handle in handles:
        try:
            results.append(handle.wait())
        except Exception as raised:  # a compressor may raise anything
            error = error or raised
    if error is not None:
        raise error
    return results


def _is_same(a: Any, b: Any) -> bool:
    """Whether they are one array, or two views of the same elements."""
    if a is b:
        return True
    seen, other = view(a), view(b)
    mine, theirs = ((each.shape, each.dtype, each.address) for each in (seen, other))
    return mine == theirs
