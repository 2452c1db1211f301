"""examples/train.py on GPUs: the arrays are CuPy's, and each rank has a GPU.

    ronde run -np 4 examples/gpu_train.py
    ronde run -np 4 examples/gpu_train.py --device cpu     # the same with NumPy, without a GPU

Ronde takes parameters and gradients as they are, in the memory of the GPUs.

Needs CuPy (`pip install "ronde[cuda12]"` or `"ronde[cuda13]"`), and scikit-learn for the data.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from types import ModuleType
from typing import Any

# With --device cpu every rank is one thread, as in train.py.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import ronde
from sklearn.datasets import load_digits

Array = Any  # of CuPy, or of NumPy


def array_module(device: str) -> ModuleType:
    """CuPy, with the GPU of this rank as its current one; or NumPy."""
    if device == "cpu":
        return np
    without = "or take --device cpu"
    try:
        import cupy
    except ImportError as error:
        raise SystemExit(
            f'CuPy is missing ({error}): pip install "ronde[cuda12]", or cuda13, {without}'
        ) from None
    try:
        gpus = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise SystemExit(
            f"CuPy finds no GPU ({error}): `ronde doctor` says more; {without}"
        ) from None
    # Where the launcher shows each rank a GPU of its own, there is one, and all take number 0.
    cupy.cuda.Device(ronde.local_rank() % gpus).use()
    return cupy


class Adam:
    """Kingma and Ba 2015."""

    def __init__(self, xp: ModuleType, params: list[Array], rate: float) -> None:
        self.xp, self.params, self.rate, self.steps = xp, params, rate, 0
        self.means = [xp.zeros_like(param) for param in params]
        self.squares = [xp.zeros_like(param) for param in params]

    def step(self, grads: list[Array]) -> None:
        self.steps += 1
        rate = self.rate * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        for param, grad, mean, square in zip(
            self.params, grads, self.means, self.squares, strict=True
        ):
            mean += 0.1 * (grad - mean)
            square += 0.001 * (grad * grad - square)
            param -= rate * mean / (self.xp.sqrt(square) + 1e-8)


def load(xp: ModuleType, rng: np.random.Generator) -> list[Array]:
    """1797 pictures of 8 x 8 pixels and their digits: four fifths to train on, the rest to test."""
    pictures, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(digits))
    train, test = np.split(order, [len(order) * 4 // 5])
    pictures = pictures.astype(np.float32) / 16
    return [
        xp.asarray(each) for each in (pictures[train], digits[train], pictures[test], digits[test])
    ]


def new_network(xp: ModuleType, hidden: int, rng: np.random.Generator) -> list[Array]:
    """Weights and biases of the two layers of a perceptron."""
    w1 = rng.normal(0.0, np.sqrt(2 / 64), (64, hidden))
    w2 = rng.normal(0.0, np.sqrt(2 / hidden), (hidden, 10))
    return [xp.asarray(each, np.float32) for each in (w1, np.zeros(hidden), w2, np.zeros(10))]


def forward(xp: ModuleType, params: list[Array], x: Array) -> tuple[Array, Array]:
    """The hidden layer's output (rows, hidden) and the log-probabilities (rows, 10)."""
    w1, b1, w2, b2 = params
    h = xp.maximum(x @ w1 + b1, 0)
    z = h @ w2 + b2
    z -= z.max(axis=1, keepdims=True)
    return h, z - xp.log(xp.exp(z).sum(axis=1, keepdims=True))


def loss_and_gradients(
    xp: ModuleType, params: list[Array], x: Array, y: Array, batch: int
) -> tuple[Array, list[Array]]:
    """The cross entropy, summed over the rows of `x`, and its gradients, divided by `batch`."""
    h, log_p = forward(xp, params, x)
    rows = xp.arange(len(y))
    dz = xp.exp(log_p)
    dz[rows, y] -= 1
    dz /= batch
    dh = (dz @ params[2].T) * (h > 0)
    return -log_p[rows, y].sum(), [x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)]


def train(xp: ModuleType, opt: Adam, x: Array, y: Array, args: argparse.Namespace) -> list[float]:
    """Returns the mean loss of each epoch."""
    order = np.random.default_rng(args.seed)  # the same on all ranks
    curve: list[float] = []
    for _ in range(args.epochs):
        total = xp.zeros((), np.float32)  # on the GPU, so that no batch waits for its loss
        indices = order.permutation(len(y))
        for start in range(0, len(y), args.batch_size):
            batch = indices[start : start + args.batch_size]
            mine = xp.asarray(batch[ronde.rank() :: ronde.size()])
            loss, grads = loss_and_gradients(xp, opt.params, x[mine], y[mine], len(batch))
            total += loss
            opt.step(grads)  # of gradients that are summed over the ranks
        curve.append(float(ronde.allreduce(total, ronde.Sum)) / len(y))
    return curve


def accuracy(xp: ModuleType, params: list[Array], x: Array, y: Array) -> float:
    """The share of digits recognised. Each rank looks at some of them."""
    mine = slice(ronde.rank(), None, ronde.size())
    right = int((forward(xp, params, x[mine])[1].argmax(axis=1) == y[mine]).sum())
    return float(ronde.allreduce(right, ronde.Sum)) / len(y)


def check_identical(params: list[Array]) -> None:
    """Raises unless all ranks hold the same bits."""
    digest = hashlib.sha256(b"".join(param.tobytes() for param in params)).hexdigest()
    if len(set(ronde.allgather_object(digest))) > 1:
        raise RuntimeError("the ranks' parameters differ")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128, help="of all ranks together")
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compression", metavar="NAME", help="a ronde.compression: auto, int4 ...")
    parser.add_argument("--curve", metavar="FILE", help="write the loss of each epoch, as JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    ronde.init()
    xp = array_module(args.device)
    rng = np.random.default_rng(args.seed)
    x, y, test_x, test_y = load(xp, rng)
    params = new_network(xp, args.hidden, rng)
    # The ranks start from the same parameters, whatever each has drawn or loaded.
    ronde.broadcast_parameters(params)
    adam = Adam(xp, params, args.learning_rate)
    opt = ronde.DistributedOptimizer(adam, op=ronde.Sum, compression=args.compression)

    start = time.perf_counter()
    curve = train(xp, opt, x, y, args)
    wall = time.perf_counter() - start

    share = ronde.allreduce(opt.communication_seconds / wall)
    correct = accuracy(xp, params, test_x, test_y)
    check_identical(params)
    if ronde.rank() == 0:
        print(f"test accuracy {correct:.4f}, {ronde.size()} ranks, identical parameters")
        print(f"{wall:.2f} s with {xp.__name__}, {share:.0%} of it communicating")
        if args.curve:
            with open(args.curve, "w") as file:
                json.dump(curve, file)


if __name__ == "__main__":
    main()
