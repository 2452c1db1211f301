"""Error feedback: what payloads leave out is added to the next gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _core
from ..process_set import ProcessSet, global_process_set
from . import _residuals
from ._method import Floats, Method
from ._names import resolved
from .codecs import Codec
from .custom import codec_of

__all__ = ["ErrorFeedback"]


class ErrorFeedback(Method):
    """A compressor with a memory: what its payloads leave out of a parameter is added to the next
    gradient.

    Pass it as `compression=`. Calls need a `name`, under which the residual of float32 is kept:
    that of array i of a group under "name[i]", that of a parameter of a `DistributedOptimizer`
    under "name[key]". All calls of one name share a residual. So two optimizers that share an
    `ErrorFeedback` need names of their own, and a call begins when the one before with that
    residual has ended. Until then the residual can be neither read, saved, loaded nor rescaled.

    A call in which any rank has NaN or infinity is reduced exactly, and all residuals stay the
    same. So a step that is skipped because a scaled loss has overflowed loses nothing. After a
    change of the scale of gradients, call `rescale`. After a collective that has failed, the
    residuals are undefined.

        feedback = ronde.compression.ErrorFeedback("int4")
        mean = ronde.allreduce(gradient, name="w", compression=feedback)

    Args:
        compressor: one of `ronde.compression`, or its name, or an object with `compress` and
            `decompress`.

    Raises:
        TypeError: `compressor` is none of these.
    """

    def __init__(self, compressor: Any) -> None:
        given = resolved("compressor", compressor)
        codec = codec_of(given)
        if codec is None and isinstance(given, Method):
            raise TypeError(
                f"{given!r} keeps its own residual; pass it as compression=, without ErrorFeedback"
            )
        if codec is None:
            raise TypeError(
                "compressor must be one of ronde.compression, as ronde.compression.int8(), or its name, or "
                f"an object with compress and decompress, not {compressor!r}"
            )
        self.compressor: Codec = codec
        self._residuals = _residuals.Residuals()
        self._native: _core.ErrorFeedback = _core.ErrorFeedback(codec._native, self._residuals.core)

    def residual(self, name: str) -> Floats:
        """Return the residual of a parameter on this rank: float32, one dimension.

        It is in units of what this rank contributes, for an average too. `KeyError` if the
        parameter has not been reduced yet, `RondeError` while a call uses it.
        """
        return self._residuals.read(name)

    def norms(self) -> dict[str, float]:
        """Return the Euclidean norm of every residual of this rank."""
        return self._residuals.norms()

    def rescale(self, factor: float) -> None:
        """Multiply all residuals by `factor`, when gradients are scaled by another factor from now on."""
        self._residuals.rescale(factor)

    def state_dict(self) -> dict[str, Any]:
        """Return all residuals of this rank, and the steps of the random numbers."""
        return {
            "compressor": repr(self.compressor),
            "steps": self._native.steps,
            "codec": self.compressor.state_dict(),
            **self._residuals.state_dict(),
        }

    def load_state_dict(
        self,
        state: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        process_set: ProcessSet | None = global_process_set,
    ) -> None:
        """Load what `state_dict` returned on this rank of an earlier job, or a list of what it
        returned on all its ranks.

        With as many ranks as before, as many of them on a machine, and the same arrays in a call,
        the run goes on bit for bit. With another number of ranks, which needs the list, each rank
        takes a share: what the residuals of all would still add to the result stays the same, for
        averages too.

        Args:
            state: the state of this rank, or a list of the states of all ranks of the earlier job.
            process_set: the ranks over which gradients are reduced; None for all.

        Raises:
            ValueError: a state belongs to another compressor, is none, or some are missing.
        """
        states = _residuals.states_of(state, "compressor", "steps", "codec")
        for each in states:
            if each["compressor"] != repr(self.compressor):
                raise ValueError(
                    f"this state belongs to {each['compressor']}, not to {self.compressor!r}"
                )
        first = _residuals.load(
            state if isinstance(state, Mapping) else states,
            process_set,
            self._residuals.load,
            self._residuals.load_share,
        )
        self._native.steps = first["steps"]
        self.compressor.load_state_dict(first["codec"])

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.compressor, self.state_dict())

    def __repr__(self) -> str:
        return f"ErrorFeedback({self.compressor!r})"


def _restored(compressor: Codec, state: dict[str, Any]) -> ErrorFeedback:
    feedback = ErrorFeedback(compressor)
    feedback._residuals.load(state)
    feedback._native.steps = state["steps"]
    compressor.load_state_dict(state["codec"])
    return feedback
