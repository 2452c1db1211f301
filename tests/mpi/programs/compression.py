"""Compressed training over messages: restored runs go on bit for bit, and feedback reaches what exact
reduction reaches. See test_collectives.py."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import ronde

ronde.init()
rank, size = ronde.rank(), ronde.size()
COMPRESSORS = [
    ronde.compression.int4(),
    ronde.compression.sign(),
    ronde.compression.ternary(seed=3),
    ronde.compression.topk(0.05),
    ronde.compression.randomk(0.05, seed=3),
    ronde.compression.shared_scale(),
    ronde.compression.shared_scale(8, rounding="stochastic", seed=3),
]


def gradient(step: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([rank, step]).standard_normal(shape).astype(np.float32)


def steps(feedback: Any, first: int, last: int) -> list[np.ndarray]:
    return [
        result
        for step in range(first, last)
        for result in ronde.grouped_allreduce(
            [gradient(step, 37, 50), gradient(step + 100, 7)], name="g", compression=feedback
        )
    ]


def same_everywhere(arrays: list[np.ndarray]) -> None:
    for others in ronde.allgather_object([array.tobytes() for array in arrays]):
        assert others == [array.tobytes() for array in arrays]


for compressor in COMPRESSORS:
    whole = steps(ronde.compression.ErrorFeedback(compressor), 0, 6)
    same_everywhere(whole)
    first = ronde.compression.ErrorFeedback(compressor)
    begun = steps(first, 0, 3)
    restored = ronde.compression.ErrorFeedback(compressor)
    restored.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    resumed = begun + steps(restored, 3, 6)
    assert [x.tobytes() for x in whole] == [x.tobytes() for x in resumed], compressor
    # Ranks that share memory reduce exactly.
    sends = size > 1 and os.environ["RONDE_SHARED_MEMORY"] == "0"
    assert all((norm > 0) == sends for norm in restored.norms().values())


def distance(compression: Any) -> float:
    """From the minimum of the mean of the ranks' parabolas, after steepest descent."""
    targets = np.stack([np.random.default_rng(r).standard_normal((20, 30)) for r in range(size)])
    params = np.zeros((20, 30), np.float32)

    def descend(params: np.ndarray, grads: list[np.ndarray]) -> np.ndarray:
        return params - np.float32(0.1) * grads[0]

    opt = ronde.DistributedOptimizer(descend, compression=compression, name="d")
    for _ in range(300):
        params = opt(params, [(params - targets[rank]).astype(np.float32)])
    same_everywhere([params])
    return float(np.abs(params - targets.mean(axis=0)).max())


assert distance(None) < 1e-5
assert distance(ronde.compression.int4()) < 0.05
assert distance(ronde.compression.shared_scale()) < 0.05
# What is sent seldom comes in bursts, as the ranks have different targets.
assert distance(ronde.compression.topk(0.2)) < 0.3
assert distance({1: ronde.compression.sign()}) < 1e-5  # there is no parameter 1

ronde.barrier()
if rank == 0:
    print(f"compression is right on {size} ranks")
