"""A training step whose gradients travel while others are computed, against the best that could be.

    python benchmarks/cluster run --hosts 4 -- .venv/bin/python benchmarks/overlap_step.py --compression int4

A perceptron of 9.4 million parameters, whose first matrix has two thirds of them and gets its gradient
last. On each turn the same step is timed in five ways: computing alone; all reductions alone; the step as
`update_params` does it; with `ready`; and computing beside reductions that wait for nothing, as their
gradients are those of the last step: what the processors allow, where hosts share them. The bound T* is a
list schedule: gradients take the wire in the order in which computing alone has made them, each as soon as
it is there and the wire is free, for its share of the bytes of the time of all reductions; then the update.
Median (least to greatest) over the turns, of the slowest rank, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import ronde
from mpi4py import MPI

SIZES = 3072, 2048, 1024, 1024, 10
ROWS = 96  # of a batch on each rank
RATE = np.float32(1e-6)

Arrays = list[np.ndarray]


class Descent:
    def update_params(self, params: Arrays, grads: Arrays) -> None:
        for param, grad in zip(params, grads, strict=True):
            grad *= RATE
            param -= grad


def backward(params: Arrays, x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The gradients of the mean square of the output, the last layer's first."""
    outputs = [x]
    for weights in params:
        outputs.append(np.maximum(outputs[-1] @ weights, 0.0))
    error = outputs[-1] / len(x)
    for i in reversed(range(len(params))):
        error = error * (outputs[i + 1] > 0.0)
        yield i, outputs[i].T @ error
        if i:
            error = error @ params[i].T


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compression", help="as int4; exact unless given")
    parser.add_argument("--turns", type=int, default=9, help="after two that do not count (9)")
    options = parser.parse_args()

    ronde.init()
    comm = MPI.COMM_WORLD
    drawn = np.random.default_rng(1)
    params = [
        (drawn.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)
        for shape in pairwise(SIZES)
    ]
    x = np.random.default_rng(ronde.rank()).standard_normal((ROWS, SIZES[0])).astype(np.float32)
    opt = ronde.DistributedOptimizer(Descent(), compression=options.compression)
    # By itself: the other reduces array by array from the first that was ready.
    at_once = ronde.DistributedOptimizer(Descent(), compression=options.compression, name="at once")
    plain = Descent()
    made: Arrays = [np.zeros_like(param) for param in params]

    def compute() -> list[float]:
        """When each gradient is there, and then the update."""
        start, ready = time.perf_counter(), [0.0] * len(params)
        for i, made[i] in backward(params, x):
            ready[i] = time.perf_counter() - start
        computed = time.perf_counter()
        plain.update_params(params, made)
        return [*ready, time.perf_counter() - computed]

    def reduce(by: ronde.DistributedOptimizer, grads: Arrays) -> None:
        by.wrapped_optimizer.update_params = lambda params, grads: None
        by.update_params(params, grads)
        del by.wrapped_optimizer.update_params

    def side_by_side() -> None:
        before = made.copy()  # not the arrays, which computing replaces
        for i in reversed(range(len(before))):
            opt.ready(i, before[i])
        compute()
        reduce(opt, before)

    def blocking() -> None:
        grads = dict(backward(params, x))
        at_once.update_params(params, [grads[i] for i in range(len(params))])

    def overlapped() -> None:
        grads = {}
        for i, grads[i] in backward(params, x):
            opt.ready(i, grads[i])
        opt.update_params(params, [grads[i] for i in range(len(params))])

    def timed(work: Callable[[], object]) -> float:
        comm.Barrier()
        start = time.perf_counter()
        work()
        return comm.allreduce(time.perf_counter() - start, op=MPI.MAX)

    names = (
        *("computing", "reductions", "blocking", "with ready", "side by side", "T*"),
        *("ready / T*", "ready / both", "blocking / T*"),
    )
    rows: list[tuple[float, ...]] = []
    for turn in range(-2, options.turns):
        comm.Barrier()
        *ready, update = (comm.allreduce(each, op=MPI.MAX) for each in compute())
        wire = timed(lambda: reduce(at_once, made))
        works = blocking, overlapped, side_by_side
        ways = {work: timed(work) for work in works[:: 1 if turn % 2 else -1]}
        best = bound(ready, [each.nbytes for each in params], wire) + update
        if turn >= 0:
            one, other, both = (ways[work] for work in works)
            ratios = other / best, other / max(best, both), one / best
            rows.append((max(ready) + update, wire, one, other, both, best, *ratios))
    if ronde.rank() == 0:
        print(f"{comm.size} ranks, {options.compression or 'exact'}")
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            digits, factor = (2, 1.0) if "/" in name else (0, 1e3)
            low, middle, high = (
                f"{each * factor:.{digits}f}" for each in (min(values), median(values), max(values))
            )
            print(f"{name:<14}{middle:>6} ({low} to {high})")


def bound(ready: list[float], sizes: list[int], wire: float) -> float:
    end = 0.0
    for when, size in sorted(zip(ready, sizes, strict=True)):
        end = max(end, when) + wire * size / sum(sizes)
    return end


if __name__ == "__main__":
    main()
