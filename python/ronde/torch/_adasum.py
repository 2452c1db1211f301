"""Adasum of what the ranks' own steps have changed: the delta optimizer of Maleki et al. (MLSys 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ._buckets import Gathered, Gradient
from ._carriers import Carrier, Reduction
from ._comparison import compare_parameters
from ._way import Way

__all__ = ["Deltas"]


class Deltas(Way):
    """Each rank steps by its own gradients; the changes of each parameter are combined by Adasum."""

    def __init__(self, name: str, reduction: Reduction, carrier: Carrier) -> None:
        self.name = name
        self.reduction = reduction
        self.carrier = carrier
        self.step = 0
        self._deltas: list[Gathered] = []  # of one parameter each, as Adasum weighs each by itself
        self._before: list[torch.Tensor] = []  # the parameters, while a step is under way
        self._known = 0

    def add(self, params: Iterable[tuple[str, torch.Tensor, int | None]]) -> None:
        for name, param, _ in params:
            number = len(self._deltas)
            self._deltas.append(Gathered([Gradient(param, name, number, None)]))

    def reset(self) -> None:
        self.step = 0
        self._known = 0
        self._before = []

    def mean_loss(self, loss: Any) -> Any:
        return self.reduction.mean(loss, f"{self.name}, the loss of a closure")

    def before_step(self) -> None:
        if self._known != len(self._deltas):
            gradients = [each for delta in self._deltas for each in delta.gradients]
            compare_parameters(self.name, self.step, gradients, self.reduction)
            self._known = len(self._deltas)
        self._before = [delta.gradients[0].param.detach().clone() for delta in self._deltas]

    def after_step(self) -> None:
        with torch.no_grad():
            for delta, before in zip(self._deltas, self._before, strict=True):
                [(_, change)] = delta.views
                torch.sub(delta.gradients[0].param, before, out=change)
                delta.finish = self.carrier.start(delta, f"{self.name}, change of", self.reduction)
            for delta, before in zip(self._deltas, self._before, strict=True):
                assert delta.finish is not None
                delta.finish()
                delta.finish = None
                [(_, change)] = delta.views
                torch.add(before, change, out=delta.gradients[0].param.detach())
        self._before = []
        self.step += 1
