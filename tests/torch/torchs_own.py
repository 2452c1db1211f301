"""torch's own tests of a backend, where they are installed with it, on the ranks of a job, as a table.

    ronde run -np 4 python tests/torch/torchs_own.py [NAME...]

It needs `expecttest`. Names are beginnings of tests; all by default, but for those that leave their group
with another timeout. Tests that need GPUs or another backend skip themselves.
"""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import ronde
import ronde.torch.distributed
import torch
import torch.distributed as dist

LEFT_OUT = ("test_barrier_timeout", "test_monitored_barrier_gloo")


def main(*wanted: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("ronde")
    tests = load()
    counts: Counter[str] = Counter()
    for name in sorted(each for each in dir(tests) if each.startswith("test_")):
        if name.startswith(wanted or ("test_",)) and (wanted or not name.startswith(LEFT_OUT)):
            results = ronde.allgather_object(result(tests, name))
            worst = max(results, key=lambda each: (each.startswith("failed"), each))
            counts[worst.partition(":")[0]] += 1
            if ronde.rank() == 0 and worst != "skipped":
                print(f"{name:60} {worst}", flush=True)
    if ronde.rank() == 0:
        print(dict(counts), flush=True)


def load() -> Any:
    """An object with all tests. They learn from the environment what they test."""
    folder = Path(ronde.broadcast_object(tempfile.mkdtemp()))
    for each in ("barrier", "test_dir", "init_dir"):
        (folder / each).mkdir(exist_ok=True)
    os.environ |= {"BACKEND": "ronde", "WORLD_SIZE": str(ronde.size()), "TEMP_DIR": str(folder)}
    os.environ["INIT_METHOD"] = "ronde://"
    from torch.testing._internal.common_utils import TestCase
    from torch.testing._internal.distributed.distributed_test import DistributedTest

    class Tests(DistributedTest._DistTestBase, TestCase):
        rank, world_size = ronde.rank(), ronde.size()

        def runTest(self) -> None: ...

        def _barrier(self, *_: Any, **__: Any) -> None:
            ronde.barrier()

    return Tests("runTest")


def result(tests: Any, name: str) -> str:
    torch.manual_seed(1234)
    try:
        getattr(tests, name)()
    except (unittest.SkipTest, SystemExit):
        return "skipped"
    except Exception as error:
        return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    return "passed"


if __name__ == "__main__":
    main(*sys.argv[1:])
