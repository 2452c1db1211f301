"""What compression leaves out, how much of the expected loss decrease it keeps, and which loss it reaches.

    python benchmarks/cluster run --hosts 4 --rate unlimited -- python benchmarks/loss_decrease.py

The training is that of time_to_loss.py, for --steps steps of its schedule. For each compressor, with error
feedback: the norm of all ranks' residuals over that of their gradients in the last step; the share of the
expected loss decrease that is kept (docs/compression.md) in the last 32 steps; and the held-out loss at the
end, over that of exact training.
Within one machine nothing would be compressed.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

# One thread for each rank, as all of them share the cores. NumPy reads this when it is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import ronde
from mpi4py import MPI
from ronde import _core
from ronde.compression import _loss_decrease, int4, linear, powersgd, sign, topk
from ronde.compression._loss_decrease import LossDecrease
from ronde.compression._method import PythonMethod, Steps
from ronde.compression._residuals import Residuals
from training import data, model

COMPRESSORS = (
    int4(),
    linear(3, block=512),
    linear(2, block=512),
    powersgd(32),
    powersgd(4),
    topk(0.1),
    topk(0.01),
    sign(),
)
_loss_decrease.PERIOD = 1 << 20  # all steps are looked at
LAST = 32  # of them count
SCHEDULE = 250  # steps, of which the first tenth warms up
RATE, MOMENTUM, BATCH, HELD_OUT = 0.1, 0.9, 64, 2048


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=110, help="of training (110)")
    options = parser.parse_args()
    ronde.init()
    exact = loss_after(options.steps, None)
    names = [repr(each).removeprefix("ronde.compression.") for each in COMPRESSORS]
    width = max(map(len, names))
    say(
        f"{'compressor':<{width}}{'residual / gradient':>20}{'decrease kept':>14}{'loss / exact':>14}"
    )
    for name, compressor in zip(names, COMPRESSORS, strict=True):
        watched = Watched(compressor)
        reached = loss_after(options.steps, watched)
        left, given = MPI.COMM_WORLD.allreduce(np.array(watched.squares))
        pairs = [list(each._pairs)[-LAST:] for each in watched.decreases.values()]
        sent, whole = np.sum(pairs, axis=(0, 1))
        say(
            f"{name:<{width}}{np.sqrt(left / given):>20.2f}{sent / whole:>14.2f}{reached / exact:>14.3f}"
        )


class Watched(PythonMethod):
    """Looks at what error feedback does to each bucket."""

    feeds_back = True

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self._codec = codec
        self._residuals = Residuals()
        self.decreases: dict[Any, LossDecrease] = {}
        # Of residuals and of contributions of this rank, by buckets, in the last step.
        self._squares: dict[Any, tuple[float, float]] = {}

    @property
    def squares(self) -> tuple[float, float]:
        left, given = zip(*self._squares.values(), strict=True)
        return sum(left), sum(given)

    def _reduce(self, bucket: _core.Bucket, residual: Any, step: int) -> Steps:
        parts, native = bucket.parts, self._codec._native
        given = sum(_core.sum_of_squares(each) for each in bucket.inputs)
        decrease = self.decreases.setdefault(parts, LossDecrease())
        yield from decrease.before(bucket)
        vector, added = bucket.residual(self._residuals.core, native.per_rank)
        yield _core.Reduce(bucket.scaled(added), native, vector, step)
        decrease.after(bucket)
        self._squares[parts] = _core.sum_of_squares(vector), given

    def __repr__(self) -> str:  # by which the ranks compare their calls
        return f"Watched({self._codec!r})"


def loss_after(steps: int, compression: Any) -> float:
    rank, ranks = ronde.rank(), ronde.size()
    params = model.new_parameters()
    sgd = model.MomentumSGD(params, MOMENTUM)
    optimizer = ronde.DistributedOptimizer(sgd, compression=compression)
    batches = data.batches(data.training_text(rank, ranks), BATCH, (0, rank))
    for step in range(steps):
        done = (step + 1) / (SCHEDULE + 1)
        optimizer.rate = RATE * min(done / 0.1, (1 - done) / 0.9)
        optimizer.step(model.gradients(params, *next(batches)))
        if sys.stderr.isatty() and rank == 0:
            print(f"\r\033[K{compression!r}: step {step + 1}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and rank == 0:
        print("\r\033[K", end="", file=sys.stderr)
    return model.loss(params, *data.held_out_examples(HELD_OUT))


def say(line: str) -> None:
    if ronde.rank() == 0:
        print(line, flush=True)


if __name__ == "__main__":
    main()
