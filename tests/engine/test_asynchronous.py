"""Asynchronous calls: in any order, fused, mismatched, failing; ranks are threads."""

from __future__ import annotations

import random
import re
import threading
import time
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core
from threads import Rank, run_all

ronde.init()

ROUTES: dict[str, dict[str, Any]] = {
    "network": {},
    "memory": {"shared": True},
    "machines": {"machines": [0, 0, 1, 1]},
}
Average, Sum, Max, Adasum = _core.Op.Average, _core.Op.Sum, _core.Op.Max, _core.Op.Adasum


class Asynchronous:
    """Asynchronous calls of a rank that is a thread."""

    def __init__(self, me: Rank, fusion_bytes: int = 1 << 20, worker: bool = True) -> None:
        self.set = me.communicator
        self.engine = _core.Engine(me.control, fusion_bytes, False, worker)

    def submit(self, kind: str, *arguments: Any, **more: Any) -> ronde.Handle[Any]:
        return ronde.Handle(getattr(self.engine, kind)(self.set, *arguments, **more))

    def allreduce(
        self, x: np.ndarray, name: str | None = None, op: _core.Op = Sum
    ) -> ronde.Handle[Any]:
        return self.submit("allreduce", x, None, op, name)

    def broadcast(self, x: np.ndarray, root: int, name: str | None = None) -> ronde.Handle[Any]:
        return self.submit("broadcast", x, root, name)

    def barrier(self, name: str | None = None) -> ronde.Handle[None]:
        return self.submit("barrier", name)

    def close(self) -> None:
        """What all ranks have pending runs; the rest ends."""
        self.engine.drain(self.set, "the test ended")
        assert self.engine.close(self.set, "the test ended")


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ROUTES[request.param]


def values(name: str, rank: int, size: int = 100) -> np.ndarray:
    return np.full(size, (rank + 1) * (1 + int(name)), np.float32)


def test_any_order_on_any_rank_and_any_step(route: dict[str, Any]) -> None:
    names = [str(i) for i in range(40)]

    def program(me: Rank) -> None:
        calls = Asynchronous(me, fusion_bytes=2000)
        shuffled = random.Random(me.rank)
        for step in range(6):
            order = shuffled.sample(names, len(names)) if step % 2 else names
            handles = {name: calls.allreduce(values(name, me.rank), name) for name in order}
            for name in shuffled.sample(names, len(names)):
                assert (handles[name].wait() == 10.0 * (1 + int(name))).all()
        calls.close()

    run_all(4, program, **route)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_is_repeated_is_reduced_anew(ranks: int) -> None:
    """Short calls that all ranks repeat are reduced while the ranks agree on them."""
    dtypes = "float16", "float32", "float64", "int8", "uint16", "int64"

    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for step in range(4):
            for dtype in dtypes:
                for count in (0, 1, 3, 500, 5000):  # the last is too long for it
                    each = [(np.arange(count) * (r + 1) + step) % 5 for r in range(ranks)]
                    stacked = np.stack(each).astype(dtype)
                    for op, expected in (
                        (Sum, stacked.sum(0, dtype=dtype)),
                        (Max, stacked.max(0)),
                        (_core.Op.Min, stacked.min(0)),
                    ):
                        handles = [
                            calls.allreduce(stacked[me.rank], f"{dtype} {count} {op} {i}", op)
                            for i in range(3)
                        ]
                        for handle in handles:
                            np.testing.assert_array_equal(handle.wait(), expected)
        calls.close()

    run_all(ranks, program, shared=True)


def test_calls_without_names_go_by_their_order(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for _ in range(3):
            handles = [calls.allreduce(values(str(i), me.rank), None) for i in range(10)]
            handles.append(calls.broadcast(np.full(3, float(me.rank)), 2, None))
            calls.barrier().wait()
            for i, handle in enumerate(handles[:-1]):
                assert (handle.wait() == 10.0 * (1 + i)).all()
            assert (handles[-1].wait() == 2.0).all()
        calls.close()

    run_all(4, program, **route)


def test_kinds_types_and_operations_together(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for _ in range(3):
            mine = np.arange(5) + me.rank
            half = calls.allreduce(mine.astype(np.float16), "half", Average)
            whole = calls.allreduce(mine, "whole", Max)
            double = calls.allreduce(mine.astype(np.float64), "double")
            sent = calls.broadcast(mine.astype(np.int32), 1, "sent")
            assert (sent.wait() == np.arange(5) + 1).all()
            assert (double.wait() == 4 * np.arange(5) + 6).all()
            assert (whole.wait() == np.arange(5) + 3).all()
            assert (half.wait() == np.arange(5) + 1.5).all()
        calls.close()

    run_all(4, program, **route)


def test_arrays_of_adasum_are_fused_and_keep_their_own_coefficients(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for _ in range(3):
            # Equal arrays are averaged, orthogonal ones added. (Machines average their ranks before.)
            equal = [calls.allreduce(np.full(n, n + 1.0), f"e{n}", Adasum) for n in range(20)]
            others = []
            for n in range(20):
                mine = np.zeros((4, n))
                mine[me.rank] = n + 1
                others.append(calls.allreduce(mine, f"o{n}", Adasum))
            total = calls.allreduce(np.ones(3), "sum", Sum)
            assert (total.wait() == 4).all()
            of_machines = 0.5 if "machines" in route else 1.0
            for n, (average, added) in enumerate(zip(equal, others, strict=True)):
                assert (average.wait() == n + 1).all()
                assert (added.wait() == of_machines * (n + 1)).all()
        calls.close()

    run_all(4, program, **route)


def test_all_collectives_in_any_order(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        mine = np.arange(8.0) + 100 * me.rank
        everything = np.arange(8.0)[None] + 100 * np.arange(me.size)[:, None]
        arguments: dict[str, tuple[Any, ...]] = {
            "allreduce": (mine, None, Sum),
            "reduce": (mine, 2, Sum),
            "reducescatter": (mine, Sum),
            "broadcast": (mine.copy(), 1),
            "allgather": (mine[: me.rank],),
            "gather": (mine, 3),
            "alltoall": (mine, None),
            "barrier": (),
        }
        total = everything.sum(0)
        expected: dict[str, Any] = {
            "allreduce": total,
            "reduce": total if me.rank == 2 else None,
            "reducescatter": total[2 * me.rank : 2 * me.rank + 2],
            "broadcast": everything[1],
            "allgather": np.concatenate([everything[r][:r] for r in range(me.size)]),
            "gather": everything.ravel() if me.rank == 3 else None,
            "alltoall": everything[:, 2 * me.rank : 2 * me.rank + 2].ravel(),
            "barrier": None,
        }
        shuffled = random.Random(me.rank)
        for _ in range(4):
            order = shuffled.sample(list(arguments), len(arguments))
            handles = {kind: calls.submit(kind, *arguments[kind], name="x") for kind in order}
            for kind in shuffled.sample(order, len(order)):
                found = handles[kind].wait()
                if kind in ("allgather", "alltoall") or (kind == "gather" and me.rank == 3):
                    found = found[0]
                np.testing.assert_array_equal(found, expected[kind], err_msg=kind)
        calls.close()

    run_all(4, program, **route)


def test_what_some_ranks_have_not_submitted_stays_pending(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        late = me.rank == me.size - 1
        early = None if late else calls.allreduce(np.ones(3), "early")
        other = calls.allreduce(np.ones(3), "other")
        assert (other.wait() == me.size).all()
        assert early is None or not early.done()
        calls.allreduce(np.ones(1), "all have looked").wait()
        if late:
            early = calls.allreduce(np.ones(3), "early")
        assert early is not None
        assert (early.wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


def test_each_waits_for_what_another_submits_later(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        first, second = ("a", "b") if me.rank % 2 else ("b", "a")
        one = calls.allreduce(np.ones(3), first)
        with pytest.raises(TimeoutError, match="goes on"):
            one.wait(timeout=0.05)
        me.communicator.barrier()  # none goes on before all have waited
        two = calls.allreduce(np.ones(3), second)
        assert (two.wait() == me.size).all()
        assert (one.wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


def test_calls_that_differ_fail_alone(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for step in range(4):
            length = 5 if step == 2 and me.rank == 1 else 3
            good = calls.allreduce(np.ones(4), "good")
            bad = calls.allreduce(np.ones(length), "bad")
            assert (good.wait() == me.size).all()
            if step == 2:
                with pytest.raises(ronde.MismatchError, match=r"(?s)'bad'.*shape \(5,\)"):
                    bad.wait()
            else:
                assert (bad.wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_call_without_a_name_that_differs_fails_alone(route: dict[str, Any], odd: int) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for _ in range(2):
            lengths = [1, 2, 3]
            if me.rank == 2:
                lengths[odd] = 7
            handles = [calls.allreduce(np.full(n, float(n))) for n in lengths]
            for i, handle in enumerate(handles):
                if i == odd:
                    with pytest.raises(ronde.MismatchError, match=r"rank 2: .*shape \(7,\)"):
                        handle.wait()
                else:
                    assert (handle.wait() == me.size * (i + 1)).all()
        calls.close()

    run_all(4, program, **route)


def test_a_name_in_flight_is_taken(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for step in range(20):
            first = calls.allreduce(np.ones(100_000), "w")
            if step % 2:
                first.done()  # it may run now
            if not first._call.done:
                with pytest.raises(ValueError, match="'w' is pending"):
                    calls.allreduce(np.ones(3), "w")
            assert (first.wait() == me.size).all()
            assert (calls.allreduce(np.ones(3), "other").wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


def test_a_name_comes_again_with_another_operation(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for step in range(6):
            mine = np.full(3, me.rank + 1.0, np.float64 if step % 3 else np.float32)
            first = calls.allreduce(mine, "a", Sum)
            second = calls.allreduce(mine, "b", Max if step % 2 else Sum)
            assert (first.wait() == 10).all()
            assert (second.wait() == (4 if step % 2 else 10)).all()
        calls.close()

    run_all(4, program, **route)


def test_more_orders_than_are_remembered() -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for i in range(4200):
            x = np.full(1, float(i))
            assert calls.allreduce(x, f"{i}").wait() == me.size * i
        for i in range(20):
            assert calls.allreduce(np.full(1, float(i)), f"{i}").wait() == me.size * i
        calls.close()

    run_all(2, program, shared=True)


def test_a_set_that_is_closed_ends_its_calls(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        common = calls.allreduce(np.ones(3), "w")
        assert (common.wait() == me.size).all()
        handles = [calls.allreduce(np.ones(3), f"{me.rank} {i}") for i in range(3)]
        assert not handles[0].done()  # and a round is under way
        me.communicator.barrier(None)
        assert me.communicator.close("the set is gone")
        calls.engine.close(calls.set, "the set is gone")
        for handle in handles:
            with pytest.raises(ronde.RondeError, match="the set is gone"):
                handle.wait()
        with pytest.raises(ronde.RondeError, match="the set is gone"):
            calls.allreduce(np.ones(3), "late")

    run_all(4, program, **route)


def test_a_timeout_holds_while_data_moves(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        handles = [calls.allreduce(np.ones(1 << 18), str(i)) for i in range(30)]
        with pytest.raises(TimeoutError):
            handles[-1].wait(timeout=0.0)
        for handle in handles:
            assert (handle.wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


def test_handlers_of_warnings_cannot_wait() -> None:
    """They are called by whoever moves calls."""

    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        handles: list[ronde.Handle[Any]] = []
        raised: list[str] = []

        def comes_back(text: str) -> None:
            handles[0].done()
            try:
                handles[0].wait()
            except ronde.RondeError as error:
                raised.append(str(error))

        me.handlers.append(comes_back)
        if me.rank == 1:
            time.sleep(1.5)
        handles.append(calls.allreduce(np.ones(3), "w"))
        assert (handles[0].wait() == me.size).all()
        assert me.rank == 1 or "while the same thread moves such calls" in raised[0]
        calls.close()

    run_all(2, program, stall_warning=0.3)


def test_blocking_calls_move_what_is_pending(route: dict[str, Any]) -> None:
    """Some ranks wait for the asynchronous call while others are in the blocking one."""

    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        for _ in range(5):
            handle = calls.allreduce(np.ones(1000), "w")
            if me.rank % 2:
                assert (handle.wait() == me.size).all()
            total = me.communicator.allreduce(np.ones(3), None, Sum)
            assert (total == me.size).all()
            assert (handle.wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


def test_handles_that_are_dropped_complete(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        x = np.full(3, float(me.rank))
        for _ in range(10):
            calls.broadcast(x, 3, None)
        calls.close()
        assert (x == 3.0).all()

    run_all(4, program, **route)


def test_at_the_end_what_is_not_pending_everywhere_ends_with_an_error() -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        lone = calls.allreduce(np.ones(3), f"of rank {me.rank}")
        common = calls.allreduce(np.ones(3), "common")
        calls.close()
        assert (common.result == me.size).all()
        with pytest.raises(ronde.RondeError, match="the test ended"):
            _ = lone.result

    run_all(3, program)


def test_a_rank_that_never_comes_is_named(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        if me.rank == 2:
            time.sleep(2.0)
            return
        calls = Asynchronous(me)
        handle = calls.allreduce(np.ones(3), "lonely")
        with pytest.raises(ronde.StalledError, match=r"(?s)lonely.*\n  2 +in no call"):
            handle.wait()
        with pytest.raises(ronde.RondeError, match="cannot be used any more"):
            calls.allreduce(np.ones(3), "next")

    run_all(4, program, **route, stall_warning=0.2, stall_timeout=0.8)


def test_ranks_that_wait_for_different_calls_are_told(route: dict[str, Any]) -> None:
    def program(me: Rank) -> list[str]:
        calls = Asynchronous(me)
        handle = calls.allreduce(np.ones(3), f"of {me.rank}")
        # Those that give up first do not come back: the others then wait for them.
        with pytest.raises(ronde.RondeError, match=r"(?s)'of \d'.*(not submitted|in no call)"):
            handle.wait()
        return me.warnings

    found = run_all(4, program, **route, stall_warning=0.2, stall_timeout=1.0)
    # One rank warns for all. (Others may warn later, of ranks that have gone.)
    assert "not all ranks have submitted" not in str(found[1:])
    text = "\n".join(found[0])
    assert "not all ranks have submitted" in text
    for rank in range(4):
        call = text.partition(f"of {rank}")[2]
        assert re.match(r".*\n  ranks .*\n", call)
        assert re.search(rf"\n  {rank} +submitted +\d", call)


def test_a_failure_ends_all_calls(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        if me.rank == 1:
            me.control.fail("it ran out of patience")
            return
        handles = [calls.allreduce(np.ones(3), str(i)) for i in range(5)]
        for handle in handles:
            with pytest.raises(ronde.RondeError, match="ran out of patience"):
                handle.wait()

    run_all(4, program, **route)


def test_several_threads_of_a_rank_submit_and_wait() -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        wrong: list[Any] = []

        def work(thread: int) -> None:
            for step in range(30):
                found = calls.allreduce(np.full(10, float(step)), f"{thread}").wait()
                wrong.extend(found[found != step * me.size])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        calls.close()

    run_all(3, program, shared=True)


def test_what_is_reduced_is_the_same_whatever_is_fused() -> None:
    """In deterministic mode, and in shared memory always."""

    def program(me: Rank, fusion_bytes: int) -> list[bytes]:
        calls = Asynchronous(me, fusion_bytes)
        draw = np.random.default_rng(me.rank)
        xs = [draw.standard_normal(n).astype(np.float32) for n in (3, 1000, 17, 250, 4000)]
        handles = [calls.allreduce(x, str(i)) for i, x in enumerate(xs)]
        found = [handle.wait().tobytes() for handle in handles]
        calls.close()
        return found

    for options in ({"deterministic": True}, {"shared": True}):
        alone = run_all(4, lambda me: program(me, 1), **options)
        together = run_all(4, lambda me: program(me, 1 << 20), **options)
        assert alone == together


def test_results_are_asked_for_too_early() -> None:
    def program(me: Rank) -> None:
        calls = Asynchronous(me)
        if me.rank == 0:
            handle = calls.allreduce(np.ones(3), "w")
            assert not handle.done()
            with pytest.raises(ronde.RondeError, match="has not ended yet"):
                _ = handle.result
            assert "under way" in repr(handle)
        me.communicator.barrier(None)
        if me.rank == 1:
            handle = calls.allreduce(np.ones(3), "w")
        assert (handle.wait() == 2).all()
        assert handle.done() and "done" in repr(handle)
        calls.close()

    run_all(2, program)
