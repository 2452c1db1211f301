"""What each rank of benchmarks/time_to_loss.py does: a loss curve, or the times of steps.

    python -m training.rank curve NAME ...       [[steps, held-out loss, seconds of these steps], ...]
    python -m training.rank times NAME,... ...   {name: [seconds of a step, ...]}

Rank 0 writes it to a file. The options are those of time_to_loss.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# One thread for each rank, as all of them share the cores. NumPy reads this when it is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import ronde
from mpi4py import MPI

from . import data, model
from .trainers import Trainer, is_auto, makers

HELD_OUT = 2048  # examples
WARM_UP = (
    3  # steps before any is timed; DistributedDataParallel chooses its buckets in the first two
)
TURN_SECONDS = 1.0
RISE = 0.1  # of the steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=("curve", "times"))
    parser.add_argument("names")
    for name in ("steps", "every", "batch", "rounds", "explore"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    ronde.init()
    report = curve(options) if options.job == "curve" else times(options)
    if ronde.rank() == 0:
        options.output.write_text(json.dumps(report))


def curve(options: argparse.Namespace) -> list[list[float]]:
    """The training rate rises in a straight line at first, then falls to nothing at the last step."""
    comm = MPI.COMM_WORLD
    trainer = makers()[options.names]()
    batches = data.batches(data.training_text(comm.rank, comm.size), options.batch, (0, comm.rank))
    part = HELD_OUT // comm.size
    mine = slice(comm.rank * part, (comm.rank + 1) * part)
    contexts, following = (array[mine] for array in data.held_out_examples(HELD_OUT))
    seconds, points = 0.0, []
    for number in range(options.steps + 1):
        if number % options.every == 0 or number == options.steps:
            own = model.loss(trainer.params, contexts, following)
            points.append([number, comm.allreduce(own) / comm.size, seconds])
            tell(f"{options.names}: step {number} of {options.steps}, loss {points[-1][1]:.3f}")
        if number == options.steps:
            break
        done = (number + 1) / (options.steps + 1)
        rate = options.rate * min(done / RISE, (1 - done) / (1 - RISE))
        seconds += slowest(partial(trainer.step, rate, *next(batches)))
    tell(None)
    check_identical(trainer.params)
    return points


def times(options: argparse.Namespace) -> dict[str, list[float]]:
    """All in turns, so many rounds; the mean step of each turn."""
    comm = MPI.COMM_WORLD
    names = options.names.split(",")
    trainers = {name: makers()[name]() for name in names}
    batches = data.batches(data.training_text(comm.rank, comm.size), options.batch, (1, comm.rank))

    def turn(trainer: Trainer, steps: int) -> float:
        drawn = [next(batches) for _ in range(steps)]

        def run() -> None:
            for batch in drawn:
                # A small rate: the loss does not matter here, but must stay finite.
                trainer.step(options.rate / 10, *batch)

        return slowest(run) / steps

    steps = {}
    for name, trainer in trainers.items():
        turn(trainer, options.explore if is_auto(name) else WARM_UP - 1)
        steps[name] = max(1, min(5, round(TURN_SECONDS / turn(trainer, 1))))
        tell(f"{name}: warm, {steps[name]} step(s) to a turn")
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name, trainer in trainers.items():
            found[name].append(turn(trainer, steps[name]))
            tell(f"round {number + 1} of {options.rounds}: {name} {found[name][-1] * 1e3:.0f} ms")
    tell(None)
    return found


def slowest(call: Callable[[], Any]) -> float:
    """Seconds of a call on the slowest rank; the same on all."""
    MPI.COMM_WORLD.Barrier()
    start = time.perf_counter()
    call()
    return float(MPI.COMM_WORLD.allreduce(time.perf_counter() - start, op=MPI.MAX))


def check_identical(params: list[model.Floats]) -> None:
    """Raises unless all ranks hold the same bits."""
    digest = hashlib.sha256(b"".join(param.tobytes() for param in params)).hexdigest()
    if len(set(ronde.allgather_object(digest))) > 1:
        raise RuntimeError("the ranks' parameters differ")


def tell(text: str | None) -> None:
    """Progress, in one line on a terminal; None ends it."""
    if ronde.rank() != 0:
        return
    if sys.stderr.isatty():
        print("\n" if text is None else f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text is not None:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
