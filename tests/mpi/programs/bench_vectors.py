"""The vectors that `ronde bench --device cuda` makes: whose memory, and what is written is read."""

from __future__ import annotations

import numpy as np
import ronde
from ronde import device_arrays
from ronde.bench import peers
from ronde.bench.cells import DTYPES, Cell

GPUS = 2

with peers.connect("ronde_cuda") as peer:
    for dtype in ("float32", "bool", "int64"):
        block = peer.empty(100, Cell("allreduce", 8, dtype))
        rows = [block[0:40], block[48:88]]
        contents = [np.arange(row, row + 40).astype(DTYPES[dtype]) for row in (0, 1)]
        for row, each in zip(rows, contents, strict=True):
            peer.write(row, each)
            taken = device_arrays.on_device(row)
            assert taken is not None
            assert taken.device == ronde.local_rank() % GPUS
        for row, each in zip(rows, contents, strict=True):
            np.testing.assert_array_equal(peer.array(row), each)
    if peer.rank == 0:
        print("in the memory of their GPUs")
