"""Every algorithm over real messages: right, the same bits on all ranks, and the same bits again."""

from __future__ import annotations

import hashlib
import itertools
import os

import collectives
import numpy as np
import ronde
from ronde import _core
from values import OPS


def rows() -> list[dict[str, str]]:
    """Settings that take every algorithm at least once, one of each collective at a time."""
    size = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or 1)
    names: dict[str, list[str]] = {}
    for collective, name, _, any_size in _core.algorithms():
        if any_size or size & (size - 1) == 0:
            names.setdefault(collective, []).append(name)
    longest = max(map(len, names.values()))
    return [{c: n[i % len(n)] for c, n in names.items()} for i in range(longest)]


def check_bits(rank: int, size: int) -> None:
    generator = np.random.default_rng(rank)
    for dtype, op in itertools.product(collectives.dtypes()[-4:], OPS):
        x = generator.normal(size=5000).astype(dtype)
        results = [ronde.allreduce(x, op) for _ in range(2)]
        assert results[0].tobytes() == results[1].tobytes()
        digests = ronde.allgather_object(hashlib.sha256(results[0].tobytes()).hexdigest())
        assert len(set(digests)) == 1, (dtype, op)


for chosen in rows():
    os.environ["RONDE_ALGORITHM"] = ",".join(f"{c}:{name}" for c, name in chosen.items())
    os.environ["RONDE_SEGMENT_BYTES"] = "4096"
    ronde.init()
    rank, size = ronde.rank(), ronde.size()
    check_bits(rank, size)
    collectives.COUNTS = (0, 1, 3, 3000)
    collectives.reductions(rank, size)
    collectives.movements(rank, size)
    ronde.shutdown()
if rank == 0:
    print("all algorithms are right on", size, "ranks")
