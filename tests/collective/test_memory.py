"""ronde.empty: memory that others can reach, what it may hold, and how it comes and goes."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import memory
from threads import Rank, run, run_all


@pytest.mark.parametrize("shape", [(), 0, 5, (3, 4), (2, 0, 3), np.int64(7), [2, 2]])
@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float32", "complex128", "i8,f4"])
def test_arrays_are_as_asked_for(shape: object, dtype: str) -> None:
    array = ronde.empty(shape, dtype)  # type: ignore[arg-type]
    like = np.empty(shape, dtype)  # type: ignore[call-overload]
    assert (array.shape, array.dtype) == (like.shape, like.dtype)
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    array[...] = np.ones((), dtype)
    assert (array == np.ones(like.shape, dtype)).all()


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "negative dimensions", (-1,)),
        (ValueError, "too large", (2**62,)),
        (TypeError, "fixed size", (3, object)),
        (TypeError, "fixed size", (3, "S")),
        (TypeError, "fixed size", (3, "3f4")),
        (TypeError, "whole number", ("3",)),
        (TypeError, "whole number", (2.5,)),
    ],
)
def test_bad_arguments_are_refused(error: type[Exception], words: str, arguments: tuple) -> None:
    with pytest.raises(error, match=words):
        ronde.empty(*arguments)


def test_more_than_there_is_gives_ordinary_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system would reserve page by page, and then kill."""
    monkeypatch.setattr(memory, "_warned", False)
    with contextlib.suppress(MemoryError):  # NumPy's, where the system refuses that too
        ronde.empty(1 << 46, np.uint8)
    assert "ronde.empty returns ordinary memory: no shared memory of" in caplog.text


def test_arrays_do_not_overlap_and_memory_is_used_again() -> None:
    generator = np.random.default_rng(0)
    arrays: dict[int, np.ndarray] = {}
    for i in range(2000):
        if arrays and generator.random() < 0.5:
            number = int(generator.choice(list(arrays)))
            assert (arrays.pop(number) == number % 251).all()
        array = ronde.empty(int(generator.integers(0, 5000)), np.uint8)
        array[...] = i % 251
        arrays[i] = array
    for number, array in arrays.items():
        assert (array == number % 251).all()
    del array
    arrays.clear()
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        ronde.empty(8 << 20, np.uint8)[...] = 1  # freed at once, so one segment will do
    assert len(os.listdir("/proc/self/fd")) <= files + 1


def test_a_forked_child_makes_arrays_of_its_own() -> None:
    old = ronde.empty(1000, np.uint8)
    old[...] = 1
    pid = os.fork()
    if pid == 0:
        inherited = old[0] == 1
        mine = ronde.empty(1000, np.uint8)
        mine[...] = 7
        apart = old[0] == 1 and not np.shares_memory(mine, old)
        del mine
        gc.collect()
        os._exit(0 if inherited and apart else 1)
    # The same place would be free on both sides.
    new = ronde.empty(1000, np.uint8)
    new[...] = 2
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (old == 1).all() and (new == 2).all()


def test_arrays_that_come_and_go_between_collectives() -> None:
    def program(me: Rank) -> None:
        for i in range(30):
            count = 200_000 + 1000 * (i % 3)
            x = ronde.empty(count, np.float32)
            x[...] = me.rank
            me.communicator.allreduce(x, x, ronde.Sum)
            assert (x == sum(range(me.size))).all()
            me.communicator.barrier()

    for size in (2, 3):
        run_all(size, program, shared=True)


def test_arrays_that_share_memory_are_refused_in_a_group() -> None:
    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        x = np.ones(9000, np.float32)
        for pair in ([x, x], [x, x[10:]]):
            with pytest.raises(ValueError, match="share memory"):
                ronde.grouped_allreduce_(pair, ronde.Sum, process_set=here)
        apart = [x[:10], x[10:20]]
        ronde.grouped_allreduce_(apart, ronde.Sum, process_set=here)
        assert (x[:20] == me.size).all() and (x[20:] == 1).all()

    run_all(2, program, shared=True)


def test_a_rank_that_comes_too_late_touches_nothing() -> None:
    def program(me: Rank) -> float:
        x = ronde.empty(500_000, np.float32)
        x[...] = 1.0
        me.communicator.allreduce(x, x, ronde.Sum, "first")
        x[...] = 1.0
        if me.rank == 1:
            gave_up.wait(60)
        with pytest.raises(ronde.RondeError):
            me.communicator.allreduce(x, x, ronde.Sum, "second")
        gave_up.set()
        kept.append(x)
        return float(x.sum())

    gave_up = threading.Event()
    kept: list[np.ndarray] = []
    results = run(2, program, shared=True, stall_warning=0.0, stall_timeout=0.6)
    assert results == [500_000.0, 500_000.0]
    assert all((x == 1.0).all() for x in kept)
