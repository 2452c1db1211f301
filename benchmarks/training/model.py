"""A language model of bytes in NumPy (after Bengio et al. 2003), and what trains it.

The bytes before are looked up in a table of vectors, which go side by side through two hidden layers; a
softmax over 256 bytes says what comes next. All is float32. `params` is a list: the table (256, EMBEDDING),
then weights (inputs, outputs) and biases (outputs,) of each layer in turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .data import CONTEXT, Bytes

Floats = npt.NDArray[np.float32]

EMBEDDING = 64
LAYERS = (CONTEXT * EMBEDDING, 2624, 2624, 256)


def new_parameters(seed: int = 0) -> list[Floats]:
    """10.3 million, those of He et al. 2015 for ReLU."""
    generator = np.random.default_rng(seed)
    params: list[Floats] = [generator.standard_normal((256, EMBEDDING), np.float32)]
    for inputs, outputs in pairwise(LAYERS):
        weights = generator.standard_normal((inputs, outputs), np.float32)
        weights *= np.float32(np.sqrt(2 / inputs))
        params += [weights, np.zeros(outputs, np.float32)]
    return params


def loss(params: list[Floats], contexts: Bytes, following: Bytes) -> float:
    """The mean cross entropy in nats."""
    *_, log_p = _forward(params, contexts)
    return -float(log_p[np.arange(len(following)), following].mean(dtype=np.float64))


def gradients(params: list[Floats], contexts: Bytes, following: Bytes) -> list[Floats]:
    """Those of the mean cross entropy, in the order of `params`."""
    *inputs, log_p = _forward(params, contexts)
    back = np.exp(log_p)
    back[np.arange(len(following)), following] -= 1
    back /= np.float32(len(following))
    grads: list[Floats] = []
    for weights, values in zip(params[-2::-2], reversed(inputs), strict=True):
        grads = [values.T @ back, back.sum(axis=0), *grads]
        back = back @ weights.T
        if weights is not params[1]:
            back *= values > 0
    table = np.zeros_like(params[0])
    np.add.at(table, contexts.reshape(-1), back.reshape(-1, EMBEDDING))
    return [table, *grads]


def _forward(params: list[Floats], contexts: Bytes) -> list[Floats]:
    """What goes into each layer, and the log-probabilities."""
    values = params[0][contexts].reshape(len(contexts), -1)
    found = [values]
    for weights, biases in zip(params[1::2], params[2::2], strict=True):
        values = values @ weights + biases
        if weights is not params[-2]:
            np.maximum(values, 0, out=values)
        found.append(values)
    logits = found.pop()
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return [*found, logits]


@dataclass
class MomentumSGD:
    """velocity = momentum velocity + gradient; parameter -= rate velocity. As torch.optim.SGD does it."""

    params: list[Floats]
    momentum: float
    rate: float = 0.0
    velocities: list[Floats] = field(init=False)

    BLOCK = 1 << 15  # elements that stay in cache, for memory is what limits this

    def __post_init__(self) -> None:
        self.velocities = [np.zeros_like(param) for param in self.params]

    def step(self, grads: list[Floats]) -> None:
        for arrays in zip(self.params, self.velocities, grads, strict=True):
            param, velocity, grad = (array.reshape(-1) for array in arrays)
            for begin in range(0, param.size, self.BLOCK):
                part = slice(begin, begin + self.BLOCK)
                velocity[part] *= self.momentum
                velocity[part] += grad[part]
                param[part] -= self.rate * velocity[part]
