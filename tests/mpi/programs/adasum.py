"""Adasum by the public functions, against its definition, and a training with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ronde

sys.path.append(str(Path(__file__).parents[2] / "collective"))
from adasum_reference import adasum

SHAPES = ((), (0,), (3,), (40, 50), (100_003,))


def gradients(rank: int) -> list[np.ndarray]:
    """One of each shape, with something that all ranks have in common."""
    common, own = np.random.default_rng(0), np.random.default_rng(rank + 1)
    return [
        np.asarray(common.standard_normal(shape) + own.standard_normal(shape), np.float32)
        for shape in SHAPES
    ]


def check(result: Any, expected: np.ndarray) -> None:
    assert result.dtype == np.float32 and result.shape == expected.shape
    assert np.allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(initial=0.0))


def reductions(rank: int, size: int) -> None:
    everything = [gradients(each) for each in range(size)]
    expected = [
        adasum([each[i].astype(np.float64).ravel() for each in everything]).reshape(shape)
        for i, shape in enumerate(SHAPES)
    ]
    mine = everything[rank]
    handles = [
        ronde.allreduce_async(x, ronde.Adasum, name=f"gradient {i}") for i, x in enumerate(mine)
    ]
    total = ronde.allreduce_async(np.float32(1), ronde.Sum, name="total")
    group = ronde.grouped_allreduce_async(mine, ronde.Adasum, name="group")
    assert total.wait() == size
    ways = [
        [ronde.allreduce(x, ronde.Adasum) for x in mine],
        [ronde.allreduce_(x.copy(), ronde.Adasum) for x in mine],
        ronde.grouped_allreduce(mine, ronde.Adasum),
        ronde.grouped_allreduce_([x.copy() for x in mine], ronde.Adasum),
        [handle.wait() for handle in handles],
        group.wait(),
    ]
    for results in ways:
        for result, wanted in zip(results, expected, strict=True):
            check(np.asarray(result), wanted)
    scaled = ronde.allreduce(mine[-1], ronde.Adasum, prescale_factor=0.5, postscale_factor=6.0)
    check(scaled, 3 * expected[-1])
    for x in ronde.allgather(np.stack([ways[0][-1]])):
        assert x.tobytes() == ways[0][-1].tobytes(), "ranks have different bits"


def refusals() -> None:
    x = np.ones(4, np.float32)
    for kind, call in {
        "reduce": lambda: ronde.reduce(x, 0, ronde.Adasum),
        "reducescatter": lambda: ronde.reducescatter(x, ronde.Adasum),
        "reduce_async": lambda: ronde.reduce_async(x, 0, ronde.Adasum),
        "reducescatter_async": lambda: ronde.reducescatter_async(x, ronde.Adasum),
        "compression": lambda: ronde.allreduce(x, ronde.Adasum, compression="int8"),
        "grouped compression": lambda: ronde.grouped_allreduce(
            [x], ronde.Adasum, compression="int8"
        ),
    }.items():
        try:
            call()
        except ValueError as error:
            assert "ronde.Adasum" in str(error), error
        else:
            raise AssertionError(kind)


def training(rank: int, size: int) -> None:
    """Least squares of data without noise, in small batches: the loss goes to zero."""
    truth = np.random.default_rng(7).standard_normal((20, 3))
    generator = np.random.default_rng([8, rank])
    params = [np.zeros((20, 3)), np.zeros(3)]

    def descend(params: list[np.ndarray], grads: list[np.ndarray]) -> None:
        for param, grad in zip(params, grads, strict=True):
            param -= 0.02 * grad

    optimizer = ronde.DistributedOptimizer(descend, op=ronde.Adasum)
    losses = []
    for _ in range(600):
        x = generator.standard_normal((8, 20))
        error = x @ params[0] + params[1] - (x @ truth + 1.0)
        losses.append(float((error**2).mean()))
        optimizer(params, [2 * x.T @ error / len(x), 2 * error.mean(0)])
    assert losses[-1] < 1e-4 * losses[0], (losses[0], losses[-1])
    for other in ronde.allgather(params[0][None]):
        assert (other == params[0]).all(), "ranks have different parameters"


def main() -> None:
    ronde.init()
    rank, size = ronde.rank(), ronde.size()
    reductions(rank, size)
    refusals()
    training(rank, size)
    ronde.barrier()
    if rank == 0:
        print(f"Adasum is right on {size} ranks")


main()
