"""Data-parallel training of a handwriting classifier, on any number of processes.

    python examples/train.py
    mpirun -n 8 python examples/train.py

All ranks hold the same network and walk through the same batches; of each batch, every rank takes
its own share. The optimizer is scikit-learn's Adam, and `ronde.DistributedOptimizer` makes it add
up the gradients of all ranks before it updates. So the losses do not depend on the number of ranks.

Needs scikit-learn (for the data and Adam) and tqdm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time

# Every rank is one thread: libraries that start one thread per core, in every rank, would leave all
# of them fighting for the cores. NumPy reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import ronde
from sklearn.datasets import load_digits
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer
from tqdm import tqdm

Arrays = list[np.ndarray]


def load(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """1797 pictures of 8 x 8 pixels and their digits: four fifths to train on, the rest to test."""
    pictures, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(digits))
    train, test = np.split(order, [len(order) * 4 // 5])
    pictures = pictures / 16.0
    return pictures[train], digits[train], pictures[test], digits[test]


def new_network(hidden: int, rng: np.random.Generator) -> Arrays:
    """Weights and biases of the two layers of a perceptron."""
    w1 = rng.normal(0.0, np.sqrt(2 / 64), (64, hidden))
    w2 = rng.normal(0.0, np.sqrt(2 / hidden), (hidden, 10))
    return [w1, np.zeros(hidden), w2, np.zeros(10)]


def forward(params: Arrays, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden layer's output (rows, hidden) and the log-probabilities (rows, 10)."""
    w1, b1, w2, b2 = params
    h = np.maximum(x @ w1 + b1, 0.0)
    z = h @ w2 + b2
    z -= z.max(axis=1, keepdims=True)
    return h, z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def loss_and_gradients(
    params: Arrays, opt: AdamOptimizer, x: np.ndarray, y: np.ndarray, batch: int
) -> tuple[float, Arrays]:
    """The cross entropy, summed over the rows of `x`, and its gradients, divided by `batch`."""
    h, log_p = forward(params, x)
    rows = np.arange(len(y))
    dz = np.exp(log_p)
    dz[rows, y] -= 1.0
    dz /= batch
    dw2 = h.T @ dz
    opt.ready(2, dw2)  # travels while the other gradients are computed
    dh = (dz @ params[2].T) * (h > 0.0)
    return -log_p[rows, y].sum(), [x.T @ dh, dh.sum(axis=0), dw2, dz.sum(axis=0)]


def train(
    params: Arrays, opt: AdamOptimizer, x: np.ndarray, y: np.ndarray, args: argparse.Namespace
) -> list[float]:
    """Returns the mean loss of each epoch."""
    order = np.random.default_rng(args.seed)  # the same on all ranks
    curve: list[float] = []
    progress = tqdm(range(args.epochs), unit="epoch", disable=ronde.rank() != 0)
    for _ in progress:
        total = 0.0
        indices = order.permutation(len(y))
        for start in range(0, len(y), args.batch_size):
            batch = indices[start : start + args.batch_size]
            mine = batch[ronde.rank() :: ronde.size()]
            # Divided by the whole batch and summed over ranks, gradients are the exact mean of the
            # batch even where the ranks' shares of it are not equal.
            loss, grads = loss_and_gradients(params, opt, x[mine], y[mine], len(batch))
            total += loss
            opt.update_params(params, grads)
        curve.append(float(ronde.allreduce(total, ronde.Sum)) / len(y))
        progress.set_postfix(loss=f"{curve[-1]:.4f}")
    return curve


def accuracy(params: Arrays, x: np.ndarray, y: np.ndarray) -> float:
    """The share of digits recognised. Each rank looks at some of them."""
    mine = slice(ronde.rank(), None, ronde.size())
    right = int((forward(params, x[mine])[1].argmax(axis=1) == y[mine]).sum())
    return float(ronde.allreduce(right, ronde.Sum)) / len(y)


def check_identical(params: Arrays) -> None:
    """Raises unless all ranks hold the same bits."""
    digest = hashlib.sha256(b"".join(param.tobytes() for param in params)).hexdigest()
    if len(set(ronde.allgather_object(digest))) > 1:
        raise RuntimeError("the ranks' parameters differ")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
    rng = np.random.default_rng(args.seed)
    x, y, test_x, test_y = load(rng)
    params = new_network(args.hidden, rng)
    # The ranks start from the same parameters, whatever each has drawn or loaded.
    ronde.broadcast_parameters(params)
    adam = AdamOptimizer(params, args.learning_rate)
    opt = ronde.DistributedOptimizer(adam, op=ronde.Sum, compression=args.compression)

    start = time.perf_counter()
    curve = train(params, opt, x, y, args)
    wall = time.perf_counter() - start

    share = ronde.allreduce(opt.communication_seconds / wall)
    correct = accuracy(params, test_x, test_y)
    check_identical(params)
    if ronde.rank() == 0:
        print(f"test accuracy {correct:.4f}, {ronde.size()} ranks, identical parameters")
        print(f"{wall:.2f} s, {share:.0%} of it communicating (with waiting for other ranks)")
        if args.curve:
            with open(args.curve, "w") as file:
                json.dump(curve, file)


if __name__ == "__main__":
    main()
