"""Ranks that have no more data: others go on, by blocking and by asynchronous calls; ranks are threads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ronde
from adasum_reference import adasum
from ronde import _core
from ronde.compression import ErrorFeedback, int4, powersgd
from threads import Rank, run_all
from values import CASES, OPS, contribution, numpy_dtype, reduced, same_bits

ronde.init()

ROUTES: dict[str, dict[str, Any]] = {
    "network": {},
    "memory": {"shared": True},
    "machines": {"machines": [0, 0, 1, 1]},
}
Average, Sum, Product, Min, Max = OP = (
    _core.Op.Average,
    _core.Op.Sum,
    _core.Op.Product,
    _core.Op.Min,
    _core.Op.Max,
)


class Calls:
    """The calls of a rank that is a thread: blocking, or asynchronous and waited for at once."""

    def __init__(self, me: Rank, blocking: bool = True) -> None:
        self.set, self.blocking = me.communicator, blocking
        self.engine = _core.Engine(me.control, 1 << 20, False, True)

    def __call__(self, kind: str, *arguments: Any, **more: Any) -> Any:
        if self.blocking:
            return getattr(self.set, kind)(*arguments, **more)
        return self.submit(kind, *arguments, **more).wait()

    def submit(self, kind: str, *arguments: Any, **more: Any) -> ronde.Handle[Any]:
        return ronde.Handle(getattr(self.engine, kind)(self.set, *arguments, **more))

    def join(self, average: str = "size") -> int:
        return self.engine.join(self.set, average == "contributing")

    def close(self) -> None:
        self.engine.drain(self.set, "the test ended")
        assert self.engine.close(self.set, "the test ended")


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ROUTES[request.param]


both = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asynchronous"])


def joins_at_once(joined: set[int], work: Callable[[Rank, Calls], None], **options: Any) -> None:
    """Some of four ranks have no data at all, the others do some work first."""

    def program(me: Rank) -> None:
        calls = Calls(me, options.get("blocking", True))
        if me.rank not in joined:
            work(me, calls)
        last = calls.join(options.get("average", "size"))
        assert last == max(set(range(me.size)) - joined)
        assert (calls("allreduce", np.ones(3), None, Sum) == me.size).all()  # as ever
        calls.close()

    run_all(4, program, **options["route"])


@both
@pytest.mark.parametrize("joined", [{0}, {3}, {1, 2}, {0, 1, 3}], ids=str)
def test_every_collective_goes_on(route: dict[str, Any], joined: set[int], blocking: bool) -> None:
    there = sorted(set(range(4)) - joined)
    root = there[-1]

    def work(me: Rank, calls: Calls) -> None:
        mine = np.arange(8.0) + 100 * me.rank
        each = np.arange(8.0)[None] + 100 * np.array(there)[:, None]
        total = each.sum(0)
        for length in (8, 40_000):
            x = np.full(length, me.rank + 1.0)
            expected = sum(rank + 1.0 for rank in there)
            assert (calls("allreduce", x, None, Sum) == expected).all()
            assert (calls("broadcast", x, root) == root + 1).all()
        found = calls("reduce", mine, root, Sum)
        assert found is None if me.rank != root else (found == total).all()
        assert calls("reduce", mine, min(joined), Sum) is None
        assert (calls("reducescatter", mine, Sum) == total[2 * me.rank : 2 * me.rank + 2]).all()
        rows, counts = calls("allgather", mine.reshape(4, 2)[: me.rank + 1])
        assert counts == [0 if rank in joined else rank + 1 for rank in range(4)]
        parts = [x.reshape(4, 2)[: r + 1] for r, x in zip(there, each, strict=True)]
        assert (rows == np.concatenate(parts)).all()
        for destination in (root, min(joined)):
            gathered = calls("gather", mine, destination)
            if me.rank == destination:
                assert (gathered[0] == each.ravel()).all()
            else:
                assert gathered is None
        data, counts = calls("alltoall", mine, None)
        assert counts == [0 if rank in joined else 2 for rank in range(4)]
        assert (data == each[:, 2 * me.rank : 2 * me.rank + 2].ravel()).all()
        assert calls("barrier") is None
        if blocking:
            given = (mine, [1, 2, 3, 2], 8, [7]) if me.rank == root else (None, [], 0, [])
            count, data, header = calls("scatter", *given, root)
            assert (count, header) == ([1, 2, 3, 2][me.rank], [7])
            start = sum([1, 2, 3, 2][: me.rank])
            assert (data.view(np.float64) == 100.0 * root + np.arange(start, start + count)).all()

    joins_at_once(joined, work, route=route, blocking=blocking)


@both
@pytest.mark.parametrize("dtype, op", CASES, ids=str)
def test_what_a_joined_rank_contributes_changes_nothing(
    route: dict[str, Any], dtype: _core.DType, op: Any, blocking: bool
) -> None:
    def work(me: Rank, calls: Calls) -> None:
        for count in (3, 5000):
            inputs = [contribution(rank, count, dtype, op) for rank in (0, 3)]
            mine = inputs[me.rank == 3]
            assert same_bits(calls("allreduce", mine, None, op, dtype=dtype), reduced(inputs, op))

    joins_at_once({1, 2}, work, route=route, blocking=blocking)


@pytest.mark.parametrize("dtype", [d for d in _core.DType.__members__.values()], ids=str)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_neutral_elements_of_every_type(dtype: _core.DType, op: Any) -> None:
    """Extremes, negative values and NaN stay what they are next to a rank that has joined."""
    kind = numpy_dtype(dtype)
    if dtype is _core.DType.bool:
        values = np.array([False, True])
    elif "float" in dtype.name:
        values = np.array([-np.inf, -2, -1, 0, 1, 2, np.inf, np.nan]).astype(kind)
    else:
        limits = np.iinfo(kind)
        values = np.array([limits.min, limits.max, 0, 1], kind)

    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank == 0:
            found = calls("allreduce", values, None, op, dtype=dtype)
            np.testing.assert_array_equal(
                found.astype(np.float64, copy=False), values.astype(np.float64)
            )
        calls.join()

    run_all(2, program)
    run_all(2, program, shared=True)


@pytest.mark.parametrize("factor", [3.0, -3.0, 0.0])
@pytest.mark.parametrize("op", [Sum, Min, Max], ids=str)
def test_factors(route: dict[str, Any], op: Any, factor: float) -> None:
    def work(me: Rank, calls: Calls) -> None:
        mine = np.array([1.0, -5.0, 2.0 + me.rank])
        inputs = [factor * np.array([1.0, -5.0, 2.0 + rank]) for rank in (0, 1)]
        found = calls("allreduce", mine, None, op, None, factor, 0.5)
        assert (found == 0.5 * reduced(inputs, op)).all()

    joins_at_once({2, 3}, work, route=route)


@both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("average, divisor", [("size", 4), ("contributing", 2)])
def test_averages(
    route: dict[str, Any], dtype: str, average: str, divisor: int, blocking: bool
) -> None:
    def work(me: Rank, calls: Calls) -> None:
        kind = _core.DType.__members__[dtype]
        for length in (3, 5000):
            x = np.full(length, 4.0 * (me.rank + 1)).astype(numpy_dtype(kind))  # 4 and 16
            found = calls("allreduce", x, None, Average, dtype=kind)
            assert (found.astype(float) == 20 / divisor).all()
            part = calls("reducescatter", x, Average, dtype=kind)
            assert (part.astype(float) == 20 / divisor).all()
            whole = calls("reduce", x, 3, Average, dtype=kind)
            assert me.rank != 3 or (whole.astype(float) == 20 / divisor).all()

    joins_at_once({1, 2}, work, route=route, blocking=blocking, average=average)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_average_of_large_halves_does_not_overflow(route: dict[str, Any], dtype: str) -> None:
    kind = _core.DType.__members__[dtype]

    def work(me: Rank, calls: Calls) -> None:
        x = np.full(5000, 60000.0 if dtype == "float16" else 3e38).astype(numpy_dtype(kind))
        found = calls("allreduce", x, None, Average, dtype=kind).astype(float)
        np.testing.assert_allclose(found, x.astype(float), rtol=2**-7)

    joins_at_once({3}, work, route=route, average="contributing")


@both
@pytest.mark.parametrize("joined", [{0}, {1, 2}, {0, 1, 3}], ids=str)
def test_adasum_merges_zeros(route: dict[str, Any], joined: set[int], blocking: bool) -> None:
    """Which leave the others' arrays as they are, each with coefficients of its own."""

    def work(me: Rank, calls: Calls) -> None:
        def gradient(rank: int, count: int) -> np.ndarray:
            drawn = np.random.default_rng([rank, count]).standard_normal(count)
            return np.zeros(count) if rank in joined else drawn

        counts = (7, 5000, 64)
        if blocking:
            found = [calls("allreduce", gradient(me.rank, n), None, ronde.Adasum) for n in counts]
        else:
            handles = [
                calls.submit("allreduce", gradient(me.rank, n), None, ronde.Adasum) for n in counts
            ]
            found = [handle.wait() for handle in handles]
        for count, result in zip(counts, found, strict=True):
            all_ranks = [gradient(rank, count) for rank in range(4)]
            if "machines" in route:  # whose ranks average before
                all_ranks = [(all_ranks[i] + all_ranks[i + 1]) / 2 for i in (0, 2)]
            np.testing.assert_allclose(result, adasum(all_ranks), rtol=1e-12, atol=1e-12)

    joins_at_once(joined, work, route=route, blocking=blocking)


@both
@pytest.mark.parametrize("fusion_bytes", [1, 1 << 20])
def test_groups_are_reduced_exactly(
    route: dict[str, Any], fusion_bytes: int, blocking: bool
) -> None:
    """Arrays of several types, in one bucket of each or in many; some have a method, as before and
    afterwards."""
    shapes = [(300, 4), (7,), (), (40, 40), (0, 3), (9,)]
    types = [np.float32, np.float64, np.int32, np.float32, np.float32, np.float64]

    def program(me: Rank) -> None:
        calls = Calls(me, blocking)
        feedback, powers = ErrorFeedback(int4()), powersgd(2)
        plan = _core.Plan(
            me.communicator,
            "grouped_allreduce",
            "g",
            Sum,
            1.0,
            1.0,
            shapes,
            [_core.DType.__members__[np.dtype(each).name] for each in types],
            [str(i) for i in range(len(shapes))],
            [("a", feedback._native, [0, 1]), ("b", powers._native, [3]), ("", None, [2, 4, 5])],
            fusion_bytes,
        )

        def arrays(rank: int, step: int) -> list[np.ndarray]:
            drawn = np.random.default_rng([rank, step])
            return [
                np.array(drawn.integers(-99, 99, shape), kind)
                for shape, kind in zip(shapes, types, strict=True)
            ]

        def reduced_exactly(step: int, there: list[int]) -> bool:
            found, exactly = calls("grouped_allreduce", plan, arrays(me.rank, step), None)
            if exactly:
                all_ranks = [arrays(rank, step) for rank in there]
                for result, *each in zip(found, *all_ranks, strict=True):
                    assert same_bits(result, sum(each).astype(result.dtype))
            return exactly

        assert not reduced_exactly(0, [0, 1, 2, 3])
        for step in range(me.rank):
            assert reduced_exactly(step, list(range(step + 1, 4)))
        assert calls.join() == 3
        assert not reduced_exactly(0, [0, 1, 2, 3])
        calls.close()

    run_all(4, program, **route)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@both
def test_loops_of_different_lengths(route: dict[str, Any], size: int, blocking: bool) -> None:
    if "machines" in route and size != 4:
        pytest.skip("two machines need four ranks")
    batches = [3, 7, 5, 1][:size]

    def program(me: Rank) -> None:
        calls = Calls(me, blocking)
        for epoch in range(3):
            for step in range(batches[me.rank] + epoch):
                there = [r for r in range(me.size) if step < batches[r] + epoch]
                x = np.full(100, me.rank + 1.0)
                assert (calls("allreduce", x, None, Sum, "g") == sum(there) + len(there)).all()
                assert (calls("allreduce", x, None, Max, "h") == max(there) + 1).all()
            assert calls.join() == int(np.argmax(batches))
            assert (calls("allreduce", np.ones(3), None, Sum, "e") == me.size).all()
        calls.close()

    run_all(size, program, **route)


def test_of_several_that_join_together_the_highest_is_the_last(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank in (0, 2):
            calls("barrier")
            calls.submit("barrier", "b").wait()
        assert calls.join() == 2
        assert calls.join() == 3
        calls.close()

    run_all(4, program, **route)


def test_asynchronous_calls_in_any_order(route: dict[str, Any]) -> None:
    """Names come in another order on each rank, and ranks join one after another."""
    names = [str(i) for i in range(30)]
    steps = [2, 6, 9, 4]

    def program(me: Rank) -> None:
        calls = Calls(me)
        shuffled = random.Random(me.rank)
        for step in range(steps[me.rank]):
            there = [rank for rank in range(me.size) if step < steps[rank]]
            handles = {}
            for name in shuffled.sample(names, len(names)):
                x = np.full(100, (me.rank + 1.0) * int(name))
                op = Sum if int(name) % 3 else Average
                handles[name] = calls.submit("allreduce", x, None, op, name)
            for name in shuffled.sample(names, len(names)):
                divisor = 1 if int(name) % 3 else len(there)
                expected = int(name) * sum(rank + 1.0 for rank in there) / divisor
                np.testing.assert_allclose(handles[name].wait(), expected)
        assert calls.join("contributing") == 2
        calls.close()

    run_all(4, program, **route)


def test_what_a_joining_rank_has_pending_takes_part(route: dict[str, Any]) -> None:
    """Its values count, and so does the rank in averages; also where all have joined."""

    def program(me: Rank) -> None:
        calls = Calls(me)
        x = np.full(3, me.rank + 1.0)
        handles = [calls.submit("allreduce", x, None, Average, None) for _ in range(me.rank + 1)]
        sent = calls.submit("broadcast", x.copy(), 3, "of all")
        if me.rank == 3:
            time.sleep(0.1)
            handles.append(calls.submit("allreduce", x, None, Average, None))
        calls.join("contributing")
        expected = [2.5, 3.0, 3.5, 4.0, 4.0]  # of ranks 0 to 3, 1 to 3, 2 and 3, 3, 3
        for handle, value in zip(handles, expected[: len(handles)], strict=True):
            assert handle.done()
            np.testing.assert_allclose(handle.result, value)
        assert (sent.result == 4.0).all()
        calls.close()

    run_all(4, program, **route)


def test_both_kinds_of_calls_together(route: dict[str, Any]) -> None:
    def work(me: Rank, calls: Calls) -> None:
        for step in range(10):
            early = calls.submit("allreduce", np.ones(1000), None, Sum, "w")
            if me.rank % 2:
                assert (early.wait() == 3).all()
            assert (calls("allreduce", np.ones(3), None, Sum) == 3).all()
            assert (early.wait() == 3).all()
            assert calls.submit("allgather", np.ones(step)).wait()[1] == [step, step, 0, step]

    joins_at_once({2}, work, route=route)


@both
def test_a_joined_rank_cannot_be_a_root(route: dict[str, Any], blocking: bool) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me, blocking)
        why = r"(?s)broadcast.*rank 1 has joined, so it has no data to send"
        if me.rank != 1:
            with pytest.raises(ronde.MismatchError, match=why):
                calls("broadcast", np.ones(3), 1)
            assert (calls("broadcast", np.full(3, me.rank), 2) == 2).all()
        elif blocking:  # the error is everybody's
            with pytest.raises(ronde.MismatchError, match=why):
                calls.join()
        calls.join()
        if blocking and me.rank != 1:
            with pytest.raises(ronde.MismatchError, match="no data to send"):
                calls("scatter", None, [], 0, [], 1)
        elif blocking:
            with pytest.raises(ronde.MismatchError, match="no data to send"):
                calls.join()
        calls.join()
        calls.close()

    run_all(4, program, **route)


@both
def test_a_product_with_a_factor_needs_all(blocking: bool) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me, blocking)
        if me.rank:
            with pytest.raises(ronde.MismatchError, match="multiply before the call"):
                calls("allreduce", np.ones(3), None, Product, "p", 2.0)
        elif blocking:
            with pytest.raises(ronde.MismatchError, match="multiply before the call"):
                calls.join()
        calls.join()
        calls.close()

    run_all(3, program)


def test_what_needs_all_ranks_says_so(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        for needy in (
            calls.set.know_link,
            lambda: calls("barrier", call=_core.Call("something larger", needs_all=True)),
            lambda: calls.set.end(_core.Call("the end")),
        ):
            with pytest.raises(ronde.MismatchError, match=r"(?s)rank 0: join.*needs all ranks"):
                needy() if me.rank else calls.join()
        calls.join()

    run_all(4, program, **route)


def test_different_averages(route: dict[str, Any]) -> None:
    """Asynchronous calls end with an error, and so do all that are in join when a blocking one comes."""

    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank > 1:
            with pytest.raises(ronde.MismatchError, match="must give the same average"):
                calls.submit("allreduce", np.ones(3), None, Sum, "w").wait()
        average = "contributing" if me.rank == 1 else "size"
        with pytest.raises(ronde.MismatchError, match=r"(?s)average=contributing.*same average"):
            calls.join(average) if me.rank < 3 else calls("barrier")
        assert (calls("allreduce", np.ones(3), None, Sum) == 4).all()
        assert (calls.submit("allreduce", np.ones(3), None, Sum, "w").wait() == 4).all()
        assert calls.join() == 3
        calls.close()

    run_all(4, program, **route)


def test_joins_that_fail_leave_nothing(route: dict[str, Any]) -> None:
    """Statements of a join may still be under way when it has failed."""

    def program(me: Rank) -> None:
        calls = Calls(me)
        own = random.Random(me.rank)
        for step in range(60):
            time.sleep(own.random() * 0.0004)
            average = "contributing" if step % 2 and me.rank == 1 else "size"
            if step % 2:
                with pytest.raises(ronde.MismatchError, match="must give the same average"):
                    calls.join(average)
            else:
                assert 0 <= calls.join(average) < me.size
            total = calls.submit("allreduce", np.ones(3), None, Sum, f"after {step}")
            assert (total.wait() == me.size).all()
        calls.close()

    run_all(4, program, **route)


def test_a_mismatch_of_the_others_names_the_ranks(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        match = r"(?s)rank 0: join.*1.*: allreduce.*shape \(3,\).*rank 2: allreduce.*shape \(4,\)"
        for _ in range(2):
            with pytest.raises(ronde.MismatchError, match=match):
                if me.rank == 0:
                    calls.join()
                else:
                    calls("allreduce", np.ones(4 if me.rank == 2 else 3), None, Sum)
        if me.rank:
            bad = calls.submit("allreduce", np.ones(4 if me.rank == 2 else 3), None, Sum, "bad")
            good = calls.submit("allreduce", np.ones(3), None, Sum, "good")
            with pytest.raises(ronde.MismatchError, match=match):
                bad.wait()
            assert (good.wait() == 3).all()
        calls.join()
        calls.close()

    run_all(4, program, **route)


def test_another_thread_cannot_call_meanwhile(route: dict[str, Any]) -> None:
    served, tried = threading.Event(), threading.Event()

    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank:
            assert (calls("allreduce", np.ones(3), None, Sum) == 3).all()
            served.set()
            assert tried.wait(30)
            calls.join()
            return
        thread = threading.Thread(target=calls.join)
        thread.start()
        assert served.wait(30)  # by that thread
        for call in (
            lambda: calls("barrier"),
            lambda: calls.submit("barrier"),
            lambda: calls.set.end(_core.Call("the end")),
            calls.join,
        ):
            with pytest.raises(
                ronde.RondeError, match=r"another thread of this rank is in ronde\.join"
            ):
                call()
        tried.set()
        thread.join()

    run_all(4, program, **route)


def test_without_comparison_there_is_no_join() -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        with pytest.raises(ronde.RondeError, match="cannot be used with RONDE_CHECK=0"):
            calls.join()

    run_all(2, program, check=False)


def test_waiting_in_join_has_no_deadline(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank < 2:
            time.sleep(1.5)
            assert (calls("allreduce", np.ones(3), None, Sum) == 2).all()
            assert (calls.submit("allreduce", np.ones(3), None, Sum, "w").wait() == 2).all()
        calls.join()
        calls.close()

    run_all(4, program, **route, stall_timeout=0.5, stall_warning=0.0)


def test_a_rank_that_never_comes_ends_the_call_of_the_others(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank == 3:
            time.sleep(2.5)
            return
        with pytest.raises(ronde.RondeError, match=r"(?s)waited.*allreduce"):
            calls.join() if me.rank < 2 else calls("allreduce", np.ones(3), None, Sum)

    run_all(4, program, **route, stall_timeout=0.7, stall_warning=0.0)


def test_an_asynchronous_call_that_others_lack_ends_alone(route: dict[str, Any]) -> None:
    """Ranks that have joined are not reported to lack it."""

    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank < 2:
            lone = (
                calls.submit("allreduce", np.ones(3), None, Sum, "lone") if me.rank == 0 else None
            )
            ended = np.zeros(1)
            while not ended[0]:
                mine = np.array([lone is not None and lone.done()], float)
                ended = calls.submit("allreduce", mine, None, Max, "ended").wait()
            if lone is not None:
                table = r"(?s)'lone'.*\n  1      not submitted\n  2-3    has joined\n"
                with pytest.raises(ronde.StalledError, match=table):
                    lone.wait()
        calls.join()
        calls.close()

    run_all(4, program, **route, stall_timeout=1.0, stall_warning=0.0)


def test_a_failure_ends_join(route: dict[str, Any]) -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank == 2:
            calls("barrier")
            me.control.fail("it ran out of patience")
            return
        with pytest.raises(ronde.RankFailedError, match="ran out of patience"):
            calls.join()
        with pytest.raises(ronde.RondeError, match="cannot be used any more"):
            calls.join()

    run_all(4, program, **route)


def test_a_rank_that_leaves_ends_join_on_its_set() -> None:
    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank < 3:
            calls.set = me.subset(1, [0, 1, 2])
        if me.rank == 1:
            assert calls("allreduce", np.ones(1), None, Sum)[0] == 2
        elif me.rank < 3:
            if me.rank == 2:
                assert calls("allreduce", np.ones(1), None, Sum)[0] == 2
            with pytest.raises(ronde.RankFailedError, match="rank 1 has left"):
                calls.join()
        me.communicator.end(_core.Call("the end"), [calls.set] if me.rank < 3 else [])

    run_all(4, program, sets={1: 3})


def test_several_sets(route: dict[str, Any]) -> None:
    """Who has joined one set goes on in the others; ranks are those of the job."""

    def program(me: Rank) -> None:
        calls = Calls(me)
        if me.rank > 0:
            calls.set = me.subset(1, [1, 2, 3])
            if me.rank == 2:
                assert calls("allreduce", np.ones(3), None, Sum)[0] == 1
                assert calls.submit("allreduce", np.ones(3), None, Sum).wait()[0] == 1
                with pytest.raises(ronde.MismatchError, match="rank 3 has joined"):
                    calls("broadcast", np.ones(3), 2)
            elif me.rank:
                with pytest.raises(ronde.MismatchError, match="rank 3 has joined"):
                    calls.join()
            assert calls.join() in (1, 2, 3)  # whoever was last after the error
            calls.close()
            calls.set = me.communicator
        assert (calls("allreduce", np.ones(3), None, Sum) == 4).all()

    run_all(4, program, sets={1: 3}, **route)


def test_the_public_function_on_one_rank() -> None:
    handle = ronde.allreduce_async(np.ones(3), name="pending")
    assert ronde.join() == 0
    assert handle.done() and (handle.result == 1).all()
    assert ronde.join("contributing", process_set=None) == 0
    with pytest.raises(ValueError, match="'all'"):
        ronde.join("all")
    with pytest.raises(TypeError, match="process_set"):
        ronde.join(process_set=[0])  # type: ignore[arg-type]
