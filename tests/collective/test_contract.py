"""The call contract: mismatches, stalls, failures. Nothing hangs, nothing is silently wrong."""

from __future__ import annotations

import pickle
import random
import re
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core
from threads import Rank, run, run_all

F32, F64 = _core.DType.float32, _core.DType.float64

both = pytest.mark.parametrize("shared", [False, True], ids=["messages", "memory"])


def allreduce(me: Rank, array: np.ndarray, name: str | None = None) -> np.ndarray:
    output = np.full_like(array, -1)
    me.communicator.allreduce(array, output, ronde.Sum, name)
    return output


@pytest.mark.parametrize("size", [2, 3, 7, 8])
@pytest.mark.parametrize(
    ("usual", "odd"),
    [
        ({"kind": "allreduce"}, {"kind": "allgather"}),
        ({"kind": "allreduce", "dtype": F32}, {"kind": "allreduce", "dtype": F64}),
        ({"kind": "allreduce", "shape": [3]}, {"kind": "allreduce", "shape": [4]}),
        ({"kind": "allreduce", "shape": [3]}, {"kind": "allreduce", "shape": [3, 1]}),
        ({"kind": "allreduce", "op": "sum"}, {"kind": "allreduce", "op": "max"}),
        ({"kind": "broadcast", "root": 0}, {"kind": "broadcast", "root": 1}),
        ({"kind": "allreduce", "name": "a"}, {"kind": "allreduce", "name": "b"}),
        ({"kind": "allreduce", "prescale": 0.5}, {"kind": "allreduce", "prescale": 0.25}),
        ({"kind": "allreduce", "postscale": 2.0}, {"kind": "allreduce"}),
        ({"kind": "init", "detail": "RONDE_WINDOW=2"}, {"kind": "init", "detail": "RONDE_WINDOW=3"}),
    ],
    ids=["kind", "dtype", "count", "rank_of_shape", "op", "root", "name", "prescale", "postscale",
         "settings"],
)  # fmt: skip
def test_a_call_that_differs_on_one_rank_raises_on_all(
    size: int, usual: dict[str, Any], odd: dict[str, Any]
) -> None:
    different = size // 2

    def program(me: Rank) -> None:
        me.communicator.barrier(call=_core.Call(**(odd if me.rank == different else usual)))

    for error in run(size, program):
        assert isinstance(error, ronde.MismatchError)
        text = str(error)
        assert str(_core.Call(**usual)) in text
        assert f"rank {different}: {_core.Call(**odd)} at rank{different}.py:1" in text


@both
def test_a_mismatch_touches_no_array_and_leaves_the_communicator_usable(shared: bool) -> None:
    def program(me: Rank) -> None:
        array = np.arange(5 if me.rank else 10, dtype=np.float32)
        output = np.full_like(array, 7)
        with pytest.raises(ronde.MismatchError, match=r"shape \(10,\).*\n.*shape \(5,\)"):
            me.communicator.allreduce(array, output, ronde.Sum)
        assert (output == 7).all()
        assert (array == np.arange(len(array))).all()
        assert (allreduce(me, np.ones(4, np.float32)) == me.size).all()

    run_all(3, program, shared=shared)


@both
def test_a_copy_of_an_operation_is_the_operation(shared: bool) -> None:
    copied = pickle.loads(pickle.dumps(ronde.Max))

    def program(me: Rank) -> None:
        op = copied if me.rank else ronde.Max
        assert me.communicator.allreduce(np.array([me.rank]), None, op)[0] == me.size - 1

    run_all(3, program, shared=shared)


@both
def test_large_messages_that_differ_never_meet(shared: bool) -> None:
    def program(me: Rank) -> None:
        allreduce(me, np.ones((10 if me.rank == 1 else 5) << 18, np.float32))

    assert all(isinstance(error, ronde.MismatchError) for error in run(4, program, shared=shared))


@both
def test_a_thousand_random_mismatches_raise_and_a_thousand_matches_do_not(shared: bool) -> None:
    """Each rank draws the same sequence of calls, and for half of them one rank changes one field."""
    kinds = ["allreduce", "allgather", "broadcast", "reduce", "alltoall", "reducescatter"]

    def draw(generator: random.Random) -> dict[str, Any]:
        return {
            "kind": generator.choice(kinds),
            "name": generator.choice(["", "w", "b"]),
            "dtype": generator.choice(list(_core.DType.__members__.values())),
            "shape": [generator.randrange(5) for _ in range(generator.randrange(4))],
            "op": generator.choice(["sum", "average", "min"]),
            "root": generator.randrange(-1, 4),
            "prescale": generator.choice([1.0, 0.5]),
            "postscale": generator.choice([1.0, 3.0]),
        }

    def program(me: Rank) -> int:
        generator = random.Random(20240)
        raised = 0
        for _ in range(2000):
            fields = draw(generator)
            differing = draw(generator)
            field = generator.choice(list(fields))
            culprit = generator.randrange(me.size)
            wanted = generator.random() < 0.5 and fields[field] != differing[field]
            if wanted and me.rank == culprit:
                fields[field] = differing[field]
            try:
                me.communicator.barrier(call=_core.Call(**fields))
                assert not wanted, f"{field} differed and nobody noticed"
            except ronde.MismatchError:
                assert wanted, "a mismatch was reported where there was none"
                raised += 1
        return raised

    for size in (3, 8):
        counts = run_all(size, program, shared=shared)
        assert len(set(counts)) == 1
        assert counts[0] > 500


def test_without_checks_the_barrier_still_compares() -> None:
    def program(me: Rank) -> None:
        me.communicator.barrier(str(me.rank))

    assert all(isinstance(e, ronde.MismatchError) for e in run(3, program, check=False))


@both
def test_without_checks_collectives_are_right(shared: bool) -> None:
    def program(me: Rank) -> None:
        for count in (0, 1, 1000):
            assert (allreduce(me, np.ones(count, np.float32)) == me.size).all()

    run_all(7, program, check=False, shared=shared)


@both
def test_who_waits_names_the_missing_and_gives_up_in_time(shared: bool) -> None:
    def program(me: Rank) -> list[str]:
        if me.rank != 2:
            with pytest.raises(ronde.StalledError, match=r"(?s)'grad'.*\n  2 +in no call"):
                allreduce(me, np.ones(3, np.float32), name="grad")
            with pytest.raises(ronde.RondeError, match="cannot be used any more"):
                allreduce(me, np.ones(3, np.float32))
        return me.warnings

    results = run_all(4, program, stall_warning=0.2, stall_timeout=1.5, shared=shared)
    assert results[1] == results[2] == results[3] == []  # one rank warns for all
    table = results[0][0].splitlines()
    assert "rank 0 has waited" in table[0] and "'grad'" in table[0]
    assert table[1].split() == ["ranks", "state", "waits", "call", "site"]
    for rank in (0, 1, 3):
        assert [
            line
            for line in table[2:]
            if re.fullmatch(rf"  {rank} +in the call +0\.\d s +rank{rank}\.py:1", line)
        ]
    assert [line for line in table[2:] if line.startswith("  2 ")] == [
        "  2      in no call (computing, stopped or dead)"
    ]


def test_who_gives_up_is_not_missing() -> None:
    """All run out of time at once, and the first to give up needs a while to say so."""

    def program(me: Rank) -> None:
        if me.rank != 2:
            with pytest.raises(ronde.StalledError) as raised:
                allreduce(me, np.ones(3, np.float32))
            missing = [line for line in str(raised.value).splitlines() if "in no call" in line]
            assert [line.split()[0] for line in missing] == ["2"]

    run_all(4, program, stall_warning=0.2, stall_timeout=1.5, slow_where=0.1)


@both
def test_a_late_rank_hears_that_the_others_gave_up(shared: bool) -> None:
    import time

    def program(me: Rank) -> None:
        if me.rank == 1:
            time.sleep(2.5)
        # Through memory the first call may still succeed: all that it needs is there.
        for _ in range(2):
            assert (allreduce(me, np.ones(3, np.float32)) == 3).all()

    errors = run(3, program, stall_warning=0.1, stall_timeout=1.0, shared=shared)
    assert isinstance(errors[0], ronde.StalledError) and isinstance(errors[2], ronde.StalledError)
    assert isinstance(errors[1], (ronde.StalledError, ronde.RankFailedError))


def test_sets_that_cross_are_named() -> None:
    def program(me: Rank) -> None:
        first, second = me.subset(1, [0, 1]), me.subset(2, [0, 1])
        for communicator in (first, second) if me.rank == 0 else (second, first):
            communicator.barrier()

    errors = run(2, program, sets={1: 2, 2: 2}, stall_warning=0.2, stall_timeout=1.5)
    assert all(isinstance(error, ronde.RondeError) for error in errors)
    text = " ".join(map(str, errors))
    assert re.search(r"\n  1 +in barrier on process set 2 ", text) or re.search(
        r"\n  0 +in barrier on process set 1 ", text
    )


@pytest.mark.parametrize("dies_after", [0, 1, 5, 20, 60])
def test_a_dead_rank_is_noticed_by_all_others(dies_after: int) -> None:
    def program(me: Rank) -> None:
        for _ in range(30):
            allreduce(me, np.ones(40_000, np.float32))

    errors = run(4, program, faults={"dies": 2, "dies_after": dies_after}, segment_bytes=512)
    assert all(isinstance(error, ronde.RankFailedError) for error in errors), errors
    assert any("rank 2 is dead" in str(error) for error in errors)


def test_a_truncated_message_is_an_error_that_says_where() -> None:
    def program(me: Rank) -> None:
        data = np.ones(1000, np.float32)
        me.communicator.broadcast(data, 0, algorithm="tree")

    errors = run(2, program, faults={"seed": 3, "truncate": 1.0}, check=False)
    assert (
        "broadcast by tree, step 1/1, rank 1 <- 0: 3999 bytes were received instead of 4000"
        in str(errors[1])
    )


@pytest.mark.parametrize("seed", range(6))
def test_delays_and_reordering_change_nothing(seed: int) -> None:
    def program(me: Rank) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(30):
            count = int(generator.integers(0, 3000))
            root = int(generator.integers(me.size))
            total = allreduce(me, np.full(count, me.rank + 1, np.float32))
            assert (total == me.size * (me.size + 1) / 2).all()
            data = np.full(count, me.rank, np.float32)
            me.communicator.broadcast(data, root)
            assert (data == root).all()
            gathered, rows = me.communicator.allgather(data)
            assert rows == [count] * me.size
            assert (gathered == root).all()

    run_all(5, program, faults={"seed": seed, "delay": 0.3}, segment_bytes=700, window=8)


@both
def test_a_failure_reaches_ranks_that_wait_elsewhere(shared: bool) -> None:
    def program(me: Rank) -> None:
        if me.rank == 0:
            me.control.fail("ValueError: boom")
            return
        allreduce(me, np.ones(3, np.float32))

    results = run(3, program, shared=shared)
    for error in results[1:]:
        assert isinstance(error, ronde.RankFailedError)
        assert "rank 0 gave up: ValueError: boom" in str(error)
        assert "while this rank was in allreduce" in str(error)


@both
def test_close_leaves_nothing_open(shared: bool) -> None:
    def program(me: Rank) -> None:
        me.communicator.barrier()
        me.communicator.end(_core.Call("shutdown"))
        assert me.control.close()

    run_all(4, program, stall_warning=0.05, shared=shared)


def test_measuring_the_link_agrees_on_all_ranks() -> None:
    def program(me: Rank) -> tuple[float, ...]:
        me.communicator.know_link()
        link = me.communicator.link
        return link.alpha, link.overhead, link.beta, link.gamma

    results = run_all(5, program)
    assert len(set(results)) == 1
    assert all(value > 0 for value in results[0])


def test_a_measurement_stays_what_it_was() -> None:
    def program(me: Rank) -> None:
        me.communicator.set_link(_core.Link(1e-6, 1e-6, 1e-9, 1e-10))
        before = me.communicator.link
        me.communicator.set_link(_core.Link(2e-6, 1e-6, 1e-9, 1e-10))
        assert (before.alpha, me.communicator.link.alpha) == (1e-6, 2e-6)

    run_all(2, program)


def test_the_first_large_collective_measures_the_link() -> None:
    def program(me: Rank) -> tuple[bool, float, float]:
        default = me.communicator.link.beta
        allreduce(me, np.ones(100, np.float32))
        untouched = me.communicator.link.beta == default
        allreduce(me, np.ones(1 << 16, np.float32))
        first = me.communicator.link.beta
        allreduce(me, np.ones(1 << 16, np.float32))
        assert me.communicator.link.beta == first  # once is enough
        return untouched, default, first

    results = run_all(3, program)
    assert len(set(results)) == 1
    untouched, default, measured = results[0]
    assert untouched
    assert measured != default


@pytest.mark.parametrize("alpha", [1e-3, 1e-8])
@pytest.mark.parametrize("size", [4, 5])
def test_a_link_that_is_set_is_not_measured_and_decides(size: int, alpha: float) -> None:
    link = {"alpha": alpha, "overhead": alpha / 10, "beta": 1e-9, "gamma": 1e-10}
    count = 1 << 15

    def program(me: Rank) -> None:
        me.communicator.set_link(_core.Link(**link))
        allreduce(me, np.ones(count, np.float32))

    counts = [count // size + (rank < count % size) for rank in range(size)]
    predicted, _ = _core.candidates("allreduce", counts, 0, 4, **link)[0]
    # Errors name the algorithm. The first message is one of the data: nothing came before.
    for error in run(size, program, faults={"truncate": 1.0}, check=False):
        assert isinstance(error, ronde.RondeError)
        assert f"allreduce by {predicted}," in str(error)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_small_allreduce_that_meets_another_call_raises_on_all(size: int) -> None:
    """Its data goes with phase 0, in messages of another length."""
    calls = [
        lambda me: allreduce(me, np.ones(8, np.float32)),
        lambda me: allreduce(me, np.ones(9, np.float32)),
        lambda me: allreduce(me, np.ones(5000, np.float32)),
        lambda me: me.communicator.barrier(),
    ]

    def program(me: Rank) -> None:
        for odd in range(len(calls)):
            for usual in range(len(calls)):
                if odd == usual:
                    continue
                with pytest.raises(ronde.MismatchError):
                    calls[odd if me.rank == size - 1 else usual](me)
        assert (allreduce(me, np.ones(8, np.float32)) == size).all()

    run_all(size, program)


HOSTILE, SHOWN = "größe\x1b[2J\nrank 0: all is well", "größe\\x1b[2J\\nrank 0: all is well"


def is_shown(text: str) -> bool:
    return SHOWN in text and "\x1b" not in text and "\nrank 0: all" not in text


@both
def test_names_and_reasons_of_peers_cannot_imitate_other_lines(shared: bool) -> None:
    def differs(me: Rank) -> None:
        me.communicator.barrier(HOSTILE if me.rank else None)

    def stalls(me: Rank) -> None:
        if me.rank:
            allreduce(me, np.ones(3, np.float32), name=HOSTILE)

    def fails(me: Rank) -> None:
        if me.rank == 0:
            me.control.fail(f"it is over\x1b[2J: {SHOWN}")
            return
        allreduce(me, np.ones(3, np.float32), name=HOSTILE)

    for program, error in (
        (differs, ronde.MismatchError),
        (stalls, ronde.StalledError),
        (fails, ronde.RankFailedError),
    ):
        for found in run(3, program, shared=shared, stall_timeout=1.0)[1:]:
            assert isinstance(found, error)
            assert is_shown(str(found)), str(found)
