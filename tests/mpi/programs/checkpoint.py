"""A checkpoint in mid-training, and what is resumed from it. See test_collectives.py.

checkpoint.py FOLDER first STEPS     trains, saves at half the steps, writes the losses of the rest
checkpoint.py FOLDER resume STEPS    the rest, from the files of the first job, of any size
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ronde

GLOBAL_BATCH, INPUTS, HIDDEN = 48, 20, 64
NAMES = ("int4", "topk", "dgc", "powersgd", "shared_scale")

ronde.init()
rank, size = ronde.rank(), ronde.size()


def feedback(name: str) -> Any:
    makers: dict[str, Any] = {
        "int4": lambda: ronde.compression.ErrorFeedback(ronde.compression.int4()),
        "topk": lambda: ronde.compression.ErrorFeedback(ronde.compression.topk(0.1)),
        "dgc": lambda: ronde.compression.dgc(0.2, momentum=0.5),
        "powersgd": lambda: ronde.compression.ErrorFeedback(ronde.compression.powersgd(rank=2)),
        "shared_scale": lambda: ronde.compression.ErrorFeedback(ronde.compression.shared_scale()),
    }
    return makers[name]()


def loss_and_gradients(params: list[np.ndarray], step: int) -> tuple[float, list[np.ndarray]]:
    """Of this rank's part of a batch that is the same whatever the number of ranks."""
    random = np.random.default_rng(step % 4)  # of few batches, so that the curve is smooth
    x = random.standard_normal((GLOBAL_BATCH, INPUTS)).astype(np.float32)
    target = np.sin(x @ np.linspace(-1, 1, INPUTS * 3, dtype=np.float32).reshape(INPUTS, 3))
    x, target = x[rank::size], target[rank::size]
    first, bias, second = params
    hidden = np.maximum(x @ first + bias, 0)
    error = hidden @ second - target
    back = (error @ second.T) * (hidden > 0) * (2 / len(x))
    grads = [x.T @ back, back.sum(axis=0), hidden.T @ error * (2 / len(x))]
    return float((error**2).mean()), grads


def step_of(params: list[np.ndarray], grads: list[np.ndarray]) -> list[np.ndarray]:
    return [p - np.float32(0.1) * g for p, g in zip(params, grads, strict=True)]


def train(params: Any, compression: Any, first: int, last: int) -> tuple[Any, list[float]]:
    opt = ronde.DistributedOptimizer(step_of, compression=compression, name="m")
    losses = []
    for step in range(first, last):
        loss, grads = loss_and_gradients(params, step)
        params = opt(params, grads)
        losses.append(float(ronde.allreduce(np.float64(loss))))
    return params, losses


def main(folder: Path, what: str, steps: int) -> None:
    for name in NAMES:
        method = feedback(name)
        if what == "first":
            random = np.random.default_rng(0)
            shapes = ((INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, 3))
            params: Any = [0.2 * random.standard_normal(s).astype(np.float32) for s in shapes]
            params, _ = train(params, method, 0, steps // 2)
            saved = {"params": params, "state": method.state_dict()}
            (folder / f"{name}.{rank}").write_bytes(pickle.dumps(saved))
        else:
            ranks = len(list(folder.glob(f"{name}.*")))
            files = [folder / f"{name}.{number}" for number in range(ranks)]
            states = [pickle.loads(file.read_bytes()) for file in files]
            params = states[0]["params"]
            method.load_state_dict([each["state"] for each in states])
        params, losses = train(params, method, steps // 2, steps)
        if rank == 0:
            digest = np.concatenate([p.ravel() for p in params]).tobytes().hex()
            (folder / f"{what}-{size}-{name}").write_text(repr([losses, digest]))


main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
