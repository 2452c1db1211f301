"""The model of model.py in torch, with its parameters in the same arrays."""

from __future__ import annotations

import torch

from .model import Floats


class Model(torch.nn.Module):
    """Contexts (size, CONTEXT) of int64 to logits (size, 256)."""

    def __init__(self, params: list[Floats]) -> None:
        super().__init__()
        shared = [torch.nn.Parameter(torch.from_numpy(param)) for param in params]
        self.params = torch.nn.ParameterList(shared)

    def forward(self, contexts: torch.Tensor) -> torch.Tensor:
        table, *layers = self.params
        values = torch.nn.functional.embedding(contexts, table).flatten(1)
        for weights, biases in zip(layers[::2], layers[1::2], strict=True):
            values = torch.addmm(biases, values, weights)
            if weights is not layers[-2]:
                values = torch.relu(values)
        return values
