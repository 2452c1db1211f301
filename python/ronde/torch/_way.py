"""How an optimizer works together with those of other ranks: what happens when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["Way"]


class Way:
    """Not at all, as on a rank that is not in the process set."""

    passes_per_step = 1

    def add(self, params: Iterable[tuple[str, torch.Tensor, int | None]]) -> None:
        """These take part from now on. Given are names, parameters, and groups if they have one."""

    def finish(self) -> None:
        """What `step` needs has been reduced then."""

    def synchronize(self) -> None:
        """The same, for a caller who may zero the gradients, or add to them."""

    def before_step(self) -> None: ...

    def after_step(self) -> None: ...

    def before_zero_grad(self) -> None: ...

    def reset(self) -> None:
        """As it was made, after an error: nothing is under way, and no step has been made."""

    def mean_loss(self, loss: Any) -> Any:
        """What the optimizer sees of what a closure returns."""
        return loss
