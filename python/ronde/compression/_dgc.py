"""Deep gradient compression: top-k of what each rank has accumulated, with its own momentum."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from .. import _core
from ..arrays import ArrayLike
from ..process_set import ProcessSet, global_process_set
from . import _residuals
from ._method import Floats, Method
from .codecs import number, ratio_of, topk, whole

__all__ = ["DGC"]


class DGC(Method):
    """Deep gradient compression (Lin et al. 2018), for one job at a time, because it keeps state.

    For the gradient g of each rank, with its velocity u and its accumulated values v:

        u = momentum u + g;  v = v + u
        the largest `ratio` of v are sent, and set to 0 in v and in u (factor masking)

    So the momentum is part of the compression, and the optimizer should be plain descent, without
    momentum. All of it is per rank, before anything is reduced: every rank sends its own selection,
    ranks that share a machine too, and one rank alone does the same by itself.

    Args:
        ratio: the share of the values of a bucket that is sent, in the end.
        momentum: from 0 (none) up to 1, excluded.
        clip: the gradients of a call are scaled down to this Euclidean norm over the root of the
            number of ranks, where theirs is larger (local clipping); None for none.
        warmup_steps: in so many steps the ratio falls from 0.25 to `ratio`, by equal factors.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        ratio: float = 0.01,
        *,
        momentum: float = 0.9,
        clip: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self._final = topk(ratio)
        self.ratio, self.momentum = ratio_of(ratio), number("momentum", momentum)
        self.clip = None if clip is None else number("clip", clip)
        self.warmup_steps = whole("warmup_steps", warmup_steps)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, not {momentum}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None, not {clip}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, not {warmup_steps}")
        self._velocity = _residuals.Residuals()
        self._accumulated = _residuals.Residuals()
        self._native = self._method()

    def ratio_at(self, step: int) -> float:
        """Return the ratio that is sent at a step, counted from 0."""
        return self._native.ratio_at(step)

    def compress(self, x: ArrayLike) -> tuple[Any, Any]:
        """Return the payload of the largest `ratio` of `x`, and what `decompress` needs.

        No state is used.
        """
        return self._final.compress(x)

    def decompress(self, payload: Any, ctx: Any) -> Any:
        """Return the array of a payload, with 0 for what was not sent."""
        return self._final.decompress(payload, ctx)

    def residual(self, name: str) -> Floats:
        """Return what a parameter has accumulated on this rank and not sent.

        It is of float32, in one dimension.
        """
        return self._accumulated.read(name)

    def norms(self) -> dict[str, float]:
        """Return the Euclidean norm of what each parameter has accumulated on this rank."""
        return self._accumulated.norms()

    def rescale(self, factor: float) -> None:
        """Multiply all state by `factor`, when gradients are scaled by another factor from now on."""
        self._accumulated.rescale(factor)
        self._velocity.rescale(factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the velocities and accumulated gradients of this rank, and the steps of the warm-up."""
        return {
            "steps": self._native.steps,
            "velocity": self._velocity.state_dict(),
            **self._accumulated.state_dict(),
        }

    def load_state_dict(
        self,
        state: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        process_set: ProcessSet | None = global_process_set,
    ) -> None:
        """Load what `state_dict` returned, as `ErrorFeedback.load_state_dict` does.

        With another number of ranks each takes a share of the velocities too.
        """
        states = _residuals.states_of(state, "steps", "velocity")
        first = _residuals.load(
            state if isinstance(state, Mapping) else states,
            process_set,
            self._load_own,
            self._load_share,
        )
        self._native.steps = first["steps"]

    def _load_own(self, state: Mapping[str, Any]) -> None:
        self._accumulated.load(state)
        self._velocity.load(state["velocity"])

    def _load_share(self, states: list[Mapping[str, Any]], scale: float) -> None:
        self._accumulated.load_share(states, scale)
        self._velocity.load_share([state["velocity"] for state in states], scale)

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "_step": self._native.steps}
        del state["_native"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._native: _core.Dgc = self._method()
        self._native.steps = vars(self).pop("_step")

    def __copy__(self) -> DGC:
        return copy.deepcopy(self)  # with residuals of its own

    def _method(self) -> _core.Dgc:
        parameters = self.ratio, self.momentum, self.clip, self.warmup_steps
        return _core.Dgc(*parameters, self._accumulated.core, self._velocity.core)

    def __repr__(self) -> str:
        further = f", clip={self.clip!r}" if self.clip is not None else ""
        if self.warmup_steps:
            further += f", warmup_steps={self.warmup_steps}"
        return f"ronde.compression.dgc(ratio={self.ratio!r}, momentum={self.momentum!r}{further})"
