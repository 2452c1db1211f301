"""Tests whose bodies run on all ranks of a job.

All tests of a file share one job for each number of ranks, as to import torch takes longer than most of them.

    @on_ranks(1, 2, 4)
    def test_a_sum() -> None:
        assert hvd.allreduce(torch.ones(3), op=hvd.Sum).tolist() == [hvd.size()] * 3

`python tests/torch/ranks.py FILE [TEST...]` under a launcher runs them by hand.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SHOWN = 6000  # characters of a job's output, at most
TIMEOUT = 240.0  # seconds of a job

Body = Callable[[], None]


def on_ranks(*counts: int) -> Callable[[Body], Callable[[int], None]]:
    """The test runs on jobs of so many ranks. Its body takes no arguments."""

    def decorate(body: Body) -> Callable[[int], None]:
        file = Path(body.__code__.co_filename)

        def test(ranks: int) -> None:
            passed, output = results(file, ranks)
            if body.__name__ not in passed:
                pytest.fail(f"on {ranks} ranks:\n{output[-SHOWN:]}", pytrace=False)

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        test.body, test.counts = body, counts  # type: ignore[attr-defined]
        return pytest.mark.parametrize("ranks", counts, ids="{}-ranks".format)(test)

    return decorate


@functools.cache
def results(file: Path, ranks: int) -> tuple[list[str], str]:
    """The tests of a file that have passed, up to the first that has not; and what the job has said."""
    import jobs

    def once() -> tuple[list[str], str]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "passed")
            report.touch()
            command = [sys.executable, str(Path(__file__)), str(file)]
            variables = {"OMP_NUM_THREADS": "1", "RONDE_TESTS_PASSED": str(report)}
            with jobs.started_command(ranks, command, **variables) as process:
                try:
                    output, _ = process.communicate(timeout=TIMEOUT)
                    end = f"\nthe job ended with status {process.returncode}"
                except subprocess.TimeoutExpired as error:
                    output = (error.stdout or b"").decode(errors="replace")
                    end = f"\nthe job has not ended after {TIMEOUT:.0f} s"
            return report.read_text().split(), output + end

    return jobs.until_begun(once, lambda result: result[1])


def load(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main(file: str, *wanted: str) -> None:
    """Runs the tests for this number of ranks in the order of the file, until one fails. `begin()` of the
    file is called before the first, and `end()` after the last."""
    import ronde
    import torch

    torch.set_num_threads(1)
    ronde.init()
    module = load(file)
    getattr(module, "begin", lambda: None)()
    report = os.environ.get("RONDE_TESTS_PASSED")
    for name, test in list(vars(module).items()):
        if ronde.size() not in getattr(test, "counts", ()) or (wanted and name not in wanted):
            continue
        if any(mark.name == "skipif" and mark.args[0] for mark in getattr(test, "pytestmark", [])):
            continue
        since = time.monotonic()
        try:
            test.body()
            ronde.barrier()
        except BaseException:
            print(f"{name} fails on rank {ronde.rank()}", flush=True)
            raise
        if ronde.rank() != 0:
            continue
        print(f"{name} passed in {time.monotonic() - since:.1f} s", flush=True)
        if report:
            with open(report, "a") as passed:
                print(name, file=passed)
    getattr(module, "end", lambda: None)()


if __name__ == "__main__":
    main(*sys.argv[1:])
