"""Deep gradient compression: top-k of what each rank has accumulated, with its own momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import _core
from ..arrays import ArrayLike
from ..process_set import ProcessSet, global_process_set
from . import _residuals
from ._group import Floats, Group, Method, squares
from .codecs import key_of, number, ratio_of, topk, whole

__all__ = ["DGC"]

FIRST_RATIO = 0.25  # of a warm-up


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

    feeds_back = True

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
        self._step: dict[str, int] = {}

    def ratio_at(self, step: int) -> float:
        """Return the ratio that is sent at a step, counted from 0."""
        if step >= self.warmup_steps or self.ratio >= FIRST_RATIO:
            return self.ratio
        return FIRST_RATIO * float((self.ratio / FIRST_RATIO) ** (step / self.warmup_steps))

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
            "steps": dict(self._step),
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
        self._step = dict(first["steps"])

    def _load_own(self, state: Mapping[str, Any]) -> None:
        self._accumulated.load(state)
        self._velocity.load(state["velocity"])

    def _load_share(self, states: list[Mapping[str, Any]], scale: float) -> None:
        self._accumulated.load_share(states, scale)
        self._velocity.load_share([state["velocity"] for state in states], scale)

    def _reduce(self, group: Group) -> None:
        group = group.scaled()
        scale = self._clipping(group)
        for bucket in group.buckets():
            velocity, _ = self._velocity.of(bucket, per_rank=True)
            accumulated, _ = self._accumulated.of(bucket, per_rank=True)
            velocity *= np.float32(self.momentum)
            inputs, offset = [], 0
            for x in bucket.inputs:
                part = velocity[offset : offset + x.size].reshape(x.shape)
                part += x if scale == 1.0 else x * np.float32(scale)
                inputs.append(part)
                offset += x.size
            first = bucket.names[0]
            step = 1 + max(self._step.get(name, -1) for name in bucket.names)
            self._step |= dict.fromkeys(bucket.names, step)
            ratio = self.ratio_at(step)
            compression = _core.Compression(
                topk(ratio)._core, accumulated, key_of(0, step, first), per_rank=True
            )
            detail = f"compression={self!r} with ratio {ratio}"
            replace(bucket, inputs=inputs).allreduce(compression, detail)
            # What has been sent has left 0 behind.
            velocity[accumulated == 0] = 0

    def _clipping(self, group: Group) -> float:
        if self.clip is None:
            return 1.0
        norm = sum(map(squares, group.inputs)) ** 0.5
        limit = self.clip / group.communicator.size**0.5
        return min(1.0, limit / norm) if norm else 1.0

    def __repr__(self) -> str:
        further = f", clip={self.clip!r}" if self.clip is not None else ""
        if self.warmup_steps:
            further += f", warmup_steps={self.warmup_steps}"
        return f"ronde.compression.dgc(ratio={self.ratio!r}, momentum={self.momentum!r}{further})"
