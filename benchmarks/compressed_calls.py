"""What a compressed call of many arrays takes beside what travels.

    python benchmarks/compressed_calls.py

prints the time that Python takes for a step, with the call of the core replaced by one that does nothing:
the median and the least of many steps, in microseconds. As an argument of ronde run or mpirun, on several
ranks,

    RONDE_SHARED_MEMORY=0 ronde run -np 2 python benchmarks/compressed_calls.py --whole

it times whole calls instead, each on the slowest rank.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ronde
from ronde import _core

ARRAYS, SHAPE = 100, (64, 40)  # float32: 10 KiB each
STEPS = 300


class Update:
    """An optimizer that does nothing."""

    def update_params(self, params: Any, grads: Any) -> Any:
        return grads


def calls() -> dict[str, Callable[[], Any]]:
    """By what they are made with."""
    random = np.random.default_rng(ronde.rank())
    xs = [random.standard_normal(SHAPE, np.float32) for _ in range(ARRAYS)]
    named = {f"layer{i}.weight": x for i, x in enumerate(xs)}
    feedback = ronde.compression.ErrorFeedback("int4")

    def optimizer(name: str) -> Any:
        return ronde.DistributedOptimizer(Update(), compression="int4", name=name)

    by_list, by_name = optimizer("list"), optimizer("dictionary")
    return {
        "grouped_allreduce_": lambda: ronde.grouped_allreduce_(xs, name="g", compression=feedback),
        "update_params, list": lambda: by_list.update_params(None, xs),
        "update_params, dictionary": lambda: by_name.update_params(None, named),
    }


def measured(call: Callable[[], Any], whole: bool) -> list[float]:
    """Seconds of each step."""
    found = []
    for _ in range(STEPS):
        if whole:
            ronde.barrier()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        found.append(ronde.allreduce(seconds, ronde.Max) if whole else seconds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whole", action="store_true", help="time whole calls")
    options = parser.parse_args()
    ronde.init()
    made = calls()
    for call in made.values():
        for _ in range(3):
            call()
    if not options.whole:

        def nothing(self: Any, plan: Any, xs: list[Any], outputs: Any, dtypes: Any = None) -> Any:
            return xs, False

        _core.Communicator.grouped_allreduce = nothing  # type: ignore[method-assign]
    for name, call in made.items():
        found = [1e6 * seconds for seconds in measured(call, options.whole)]
        if ronde.rank() == 0:
            print(f"{name:<26}{statistics.median(found):>9.1f} us, least {min(found):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
