"""Asynchronous calls with compression: in any order, dropped, refused, and what may be done meanwhile; ranks
are threads."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core
from ronde.compression import ErrorFeedback, auto, dgc, randomk
from threads import Rank, run_all

ronde.init()

LINK = _core.Link(20e-6, 5e-6, 8e-9, 2e-10)


class Calls:
    """Of a rank that is a thread. Nothing moves unless it waits."""

    def __init__(self, me: Rank) -> None:
        self.set = me.communicator
        self.set.set_link(LINK)
        self.engine = _core.Engine(me.control, 1 << 20, False, False)

    def submit(
        self, x: np.ndarray, name: str, method: Any, *, in_place: bool = False
    ) -> ronde.Handle[np.ndarray]:
        """An allreduce of floats."""
        plan = _core.Plan(
            *(self.set, "allreduce", name, ronde.Sum, 1.0, 1.0),
            *([x.shape], [_core.DType.float32], [name], [("m", method._native, [0])], 1 << 20),
        )
        call = self.engine.grouped_allreduce(self.set, plan, [x], [x] if in_place else None)
        return ronde.Handle(call, lambda done: done[0][0])

    def close(self) -> None:
        """What all ranks have pending runs."""
        self.engine.drain(self.set, "the test ended")
        assert self.engine.close(self.set, "the test ended")


class Plain:
    """A compressor of the user's own."""

    def compress(self, x: np.ndarray) -> Any:
        return x, None

    def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
        return payload


class Raises(Plain):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def compress(self, x: np.ndarray) -> Any:
        raise self.error


def own(compressor: Any) -> Any:
    return ronde.compression.method_of(compressor)


@pytest.mark.parametrize("make", [lambda: randomk(0.5, seed=1), lambda: auto([randomk(0.5)])])
def test_ranks_need_not_be_equally_far_when_they_submit(make: Callable[[], Any]) -> None:
    """A rank submits a call after it has completed another, the others before."""
    submitted = threading.Barrier(3)

    def program(me: Rank) -> None:
        calls, method = Calls(me), make()
        for step in range(3):
            x = np.full(1000, me.rank + step + 1.0, np.float32)
            if me.rank == 0:
                submitted.wait()
                first = calls.submit(x, "a", method)
                first.wait()
                second = calls.submit(x, "b", method)
            else:
                first, second = (calls.submit(x, name, method) for name in "ab")
                submitted.wait()
            for handle in (first, second):
                result = handle.wait()
                assert set(result) <= {0.0, 3 * step + 6.0}
                assert np.count_nonzero(result) >= 500
        calls.close()

    run_all(3, program)


def test_a_call_needs_nobody_to_keep_its_handle_or_its_compressor() -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        makers: list[Callable[[], Any]] = [
            lambda: own(Plain()),
            auto,
            lambda: ErrorFeedback(Plain()),
        ]
        arrays = [np.ones(100, np.float32) for _ in makers]
        for i, make in enumerate(makers):
            calls.submit(arrays[i], f"{i}", make(), in_place=True)
        gc.collect()
        calls.close()
        for x in arrays:
            assert (x == 2).all()

    run_all(2, program)


def test_a_refused_call_says_so_whenever_it_is_asked() -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        method = own(Raises(ValueError("not today")))
        handle = calls.submit(np.ones(3, np.float32), "a", method)
        for _ in range(3):
            with pytest.raises(ValueError, match="not today"):
                handle.wait()
            with pytest.raises(ValueError, match="not today"):
                _ = handle.result
        assert (calls.submit(np.ones(3, np.float32), "a", own(Plain())).wait() == 2).all()
        calls.close()

    run_all(2, program)


def test_what_ends_all_calls_is_raised_by_each_of_them_as_often_as_it_is_asked() -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        methods = [own(Raises(KeyboardInterrupt("stop"))) for _ in range(3)]
        handles = [calls.submit(np.ones(3, np.float32), f"{i}", m) for i, m in enumerate(methods)]
        for handle in [*handles, *handles]:
            with pytest.raises(KeyboardInterrupt, match="stop"):
                handle.wait()

    run_all(1, program)


@pytest.mark.parametrize(
    "make", [lambda: ErrorFeedback("int4"), lambda: dgc(0.1), auto, lambda: ErrorFeedback(Plain())]
)
def test_residuals_belong_to_a_call_until_it_has_ended(make: Callable[[], Any]) -> None:
    checked = threading.Barrier(2)

    def program(me: Rank) -> None:
        calls, method = Calls(me), make()
        here: Any = SimpleNamespace(_communicator=me.communicator)
        x = np.arange(2000, dtype=np.float32)
        state = None
        for _ in range(2):
            if me.rank == 1:
                checked.wait()
            handle = calls.submit(x, "w", method)
            if me.rank == 0:
                for y in (x, x[:10]):
                    with pytest.raises(ValueError, match="residual of 'w' is under way: wait"):
                        ronde.allreduce(y, name="w", compression=method, process_set=here)
                with pytest.raises(ronde.RondeError, match="is under way: wait for it first"):
                    method.state_dict()
                with pytest.raises(ronde.RondeError, match="is under way: wait for it first"):
                    method.rescale(2.0)
                if state:
                    with pytest.raises(ronde.RondeError, match="is under way: wait for it first"):
                        method.load_state_dict(state, here)
                    with pytest.raises(ronde.RondeError, match="is under way: wait for it first"):
                        copy.copy(method)
                checked.wait()
            handle.wait()
            state = method.state_dict()
            method.rescale(1.0)
            method.load_state_dict(state, here)
            method.norms()
        ronde.allreduce(x, name="w", compression=method, process_set=here)
        calls.close()

    run_all(2, program)


def test_a_call_that_is_not_made_lets_go_of_its_residuals() -> None:
    def program(me: Rank) -> None:
        calls, method = Calls(me), ErrorFeedback("int4")
        x = np.arange(200, dtype=np.float32)
        pending = calls.submit(x, "w", own(Plain()))
        with pytest.raises(ValueError, match="is pending"):
            calls.submit(x, "w", method)
        method.rescale(2.0)
        pending.wait()
        calls.submit(x, "w", method).wait()
        calls.close()

    run_all(2, program)


def test_a_compressor_makes_no_asynchronous_calls() -> None:
    class Submits(Plain):
        def __init__(self, calls: Calls) -> None:
            self.calls = calls

        def compress(self, x: np.ndarray) -> Any:
            self.calls.submit(x, "inner", own(Plain()))
            return x, None

    def program(me: Rank) -> None:
        calls = Calls(me)
        handle = calls.submit(np.ones(3, np.float32), "outer", own(Submits(calls)))
        with pytest.raises(ronde.RondeError, match="perhaps by a compressor"):
            handle.wait()
        calls.close()

    run_all(2, program)
