"""Groups of arrays as one call: they agree once, whatever methods they are reduced by, and what is known of a
group is used again only where it holds."""

from __future__ import annotations

import copy
import dataclasses
import gc
import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core, _groups, context
from ronde.compression import (
    ErrorFeedback,
    auto,
    dgc,
    int4,
    int8,
    powersgd,
    randomk,
    shared_scale,
    sign,
)
from threads import Rank, run, run_all

ronde.init()

LINK = _core.Link(20e-6, 5e-6, 8e-9, 2e-10)


def here(me: Rank) -> Any:
    return SimpleNamespace(_communicator=me.communicator)


def values(rank: int, count: int, step: int = 0) -> np.ndarray:
    return np.random.default_rng([rank, count, step]).standard_normal(count).astype(np.float32)


@pytest.mark.parametrize("arrays", [1, 5])
def test_a_group_of_several_buckets_agrees_once(
    arrays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks each send as many bytes as they reduce, and once two fingerprints and a flag."""
    world = context.world()
    monkeypatch.setattr(world, "settings", dataclasses.replace(world.settings, fusion_bytes=1))

    def program(me: Rank) -> None:
        me.communicator.set_link(LINK)
        before = me.communicator.bytes_sent
        xs = [values(me.rank, 100_000) for _ in range(arrays)]
        ronde.grouped_allreduce(xs, name="g", process_set=here(me))
        assert me.communicator.bytes_sent - before == arrays * 400_000 + 2 * 8 + 1

    run_all(2, program)


@pytest.mark.parametrize("make", [lambda: None, int8, lambda: ErrorFeedback(sign())])
def test_other_arrays_under_a_name_are_another_group(make: Any) -> None:
    def program(me: Rank) -> None:
        method = make()
        for step in range(4):
            for dtype in (np.float32, np.float64):
                # Whole numbers up to 127 are what all of these compressors send unchanged.
                xs = [np.full(shape, 127, dtype) for shape in ((3, 4), (4, 3), (12,))]
                options = {"compression": None if step % 2 else method, "process_set": here(me)}
                found = ronde.grouped_allreduce(xs[: 2 + step % 2], ronde.Sum, **options, name="g")
                for x, y in zip(xs, found, strict=False):
                    assert (y.shape, y.dtype) == (x.shape, x.dtype)
                    np.testing.assert_allclose(y, 2 * x, rtol=1e-6)

    run_all(2, program)


def test_a_new_compressor_is_used_though_it_is_where_an_old_one_was() -> None:
    def program(me: Rank) -> None:
        x, seen = values(me.rank, 4096), set()
        for number in range(200):
            compressor = (int8, sign)[number % 2]()
            seen.add(id(compressor))
            found = ronde.allreduce(x, name="w", compression=compressor, process_set=here(me))
            assert (len(np.unique(np.abs(found))) < 40) == (number % 2 == 1)
            del compressor
            gc.collect()
        assert len(seen) < 200, "a test that could not fail"

    gc.freeze()  # what is not from here need not be looked through 400 times
    try:
        run_all(2, program)
    finally:
        gc.unfreeze()


def test_arrays_of_other_kinds_take_the_place_of_plain_ones() -> None:
    def program(me: Rank) -> None:
        feedback = ErrorFeedback(int4())
        for make in (
            np.ascontiguousarray,
            np.asfortranarray,
            lambda x: x[::-1],
            bytearray,
            memoryview,
        ):
            x = make(np.full((6, 7), 7.0, np.float32))
            if isinstance(x, bytearray):
                continue  # of bytes, which are not compressed
            (found,) = ronde.grouped_allreduce(
                [x], ronde.Sum, "g", compression=feedback, process_set=here(me)
            )
            assert (np.asarray(found) == 14).all()

    run_all(2, program)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ErrorFeedback(randomk(0.1)), "draw"),
        (lambda: dgc(0.1, warmup_steps=9), "step . of a warm-up"),
    ],
)
def test_ranks_that_are_at_other_steps_are_told(make: Any, words: str) -> None:
    def program(me: Rank) -> None:
        method = make()
        for step in range(2):
            x = values(me.rank, 1000, step)
            ronde.allreduce(x, name="w", compression=method, process_set=here(me))
        if me.rank == 1:
            state = method.state_dict()
            method.load_state_dict({**state, "steps": {"w": 5}}, here(me))
        with pytest.raises(ronde.MismatchError, match=words):
            ronde.allreduce(x, name="w", compression=method, process_set=here(me))

    run_all(2, program)


def test_no_name_is_not_the_name_of_nothing() -> None:
    def program(me: Rank) -> None:
        x = np.ones(9, np.float32)
        ronde.grouped_allreduce([x], name="g", process_set=here(me))
        with pytest.raises(ValueError, match="compression='' is not a compressor"):
            ronde.grouped_allreduce([x], name="g", compression="", process_set=here(me))

    run_all(1, program)


def test_of_too_many_groups_the_latest_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_groups, "_MOST", 3)

    def program(me: Rank) -> None:
        for name in "abcde":
            ronde.grouped_allreduce([np.ones(3)], name=name, process_set=here(me))
        assert [way.name for way in _groups._plans[me.communicator]] == ["c", "d", "e"]

    run_all(1, program)


@pytest.mark.parametrize("make", [lambda: ErrorFeedback("int4"), lambda: dgc(0.1), auto])
def test_a_copy_has_residuals_of_its_own(make: Any) -> None:
    def program(me: Rank) -> None:
        method = make()
        for step in range(2):
            x = values(me.rank, 1000, step)
            ronde.allreduce(x, name="w", compression=method, process_set=here(me))
        twin, before = copy.copy(method), method.norms()
        twin.rescale(0.0)
        assert method.norms() == before
        results = [
            ronde.allreduce(x, name="w", compression=each, process_set=here(me))
            for each in (method, twin)
        ]
        if sum(before.values()):
            assert (results[0] != results[1]).any()

    run_all(2, program)


def test_what_cannot_be_reduced_is_refused_before_anything_is_sent() -> None:
    def program(me: Rank) -> None:
        x = values(me.rank, 60)
        feedback = ErrorFeedback(int4())
        with pytest.raises(ValueError, match="error feedback needs a name"):
            ronde.allreduce(x, compression=feedback, process_set=here(me))
        ronde.allreduce(x, name="w", compression=feedback, process_set=here(me))
        with pytest.raises(ValueError, match="residual of 'w' has 60 elements, the array 7"):
            ronde.allreduce(x[:7], name="w", compression=feedback, process_set=here(me))
        with pytest.raises(ValueError, match=r"needs op=ronde\.Sum or .* not ronde\.Max"):
            ronde.allreduce(x, ronde.Max, compression=int4(), process_set=here(me))
        with pytest.raises(TypeError, match="name must be a string"):
            ronde.allreduce(x, name=[], compression=int4(), process_set=here(me))  # type: ignore
        with pytest.raises(TypeError, match="prescale_factor must be a number"):
            ronde.allreduce(x, prescale_factor=[], compression=int4(), process_set=here(me))  # type: ignore
        x.flags.writeable = False
        with pytest.raises(ValueError, match="read only"):
            ronde.allreduce_(x, name="w", compression=feedback, process_set=here(me))
        assert me.communicator.allreduce(np.ones(1), None, ronde.Sum) == 2

    run_all(2, program)


# Compressors of the user's own, which run while their call is under way.


class Own:
    """A compressor whose ranks may do different things."""

    def __init__(self, rank: int, sums: bool = False) -> None:
        self.rank, self.sums = rank, sums

    def compress(self, x: np.ndarray) -> Any:
        return x.copy(), None

    def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
        return payload


@pytest.mark.parametrize("compressing", [False, True])
def test_payloads_that_cannot_be_added_are_refused_on_all_ranks(compressing: bool) -> None:
    class Uneven(Own):
        def compress(self, x: np.ndarray) -> Any:
            return x[: 5 + self.rank * compressing], None

        def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
            return payload if compressing else payload[:3]

    def program(me: Rank) -> None:
        x = np.ones(9, np.float32)
        error = ronde.MismatchError if compressing else ValueError
        words = r"payloads of Uneven differ; .*\[[56]\]" if compressing else "has decompressed"
        with pytest.raises(error, match=words):
            ronde.allreduce(x, compression=Uneven(me.rank, True), process_set=here(me))
        assert (ronde.allreduce(x, ronde.Sum, process_set=here(me)) == 2).all()  # and goes on

    run_all(2, program)


def test_a_decompression_that_fails_fails_on_all_ranks() -> None:
    class Moody(Own):
        def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
            if self.rank == 1:
                raise ArithmeticError("not today")
            return payload

    def program(me: Rank) -> None:
        xs = [np.ones(9, np.float32) for _ in range(2)]
        error = ArithmeticError if me.rank == 1 else ronde.RondeError
        with pytest.raises(error, match=r"not today|Moody has failed on another rank"):
            ronde.grouped_allreduce(xs, compression=Moody(me.rank), process_set=here(me))
        assert (ronde.allreduce(xs[0], ronde.Sum, process_set=here(me)) == 2).all()  # and goes on

    run_all(2, program)


def test_a_refused_call_leaves_the_residuals_as_they_were() -> None:
    class Moody(Own):
        """Fails as it decompresses what others have sent."""

        left = 1000

        def compress(self, x: np.ndarray) -> Any:
            return x.astype(np.float16), None

        def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
            self.left -= 1
            if self.left == 0:
                raise ArithmeticError("not today")
            return payload.astype(np.float32)

    def program(me: Rank) -> None:
        moody = Moody(me.rank)
        feedback = ErrorFeedback(moody)
        for step in range(2):
            if step == 1 and me.rank == 1:
                moody.left = 2
            before = feedback.residual("w") if step else None
            x = values(me.rank, 100, step)
            if step == 0:
                ronde.allreduce(x, name="w", compression=feedback, process_set=here(me))
                continue
            with pytest.raises((ArithmeticError, ronde.RondeError), match=r"not today|has failed"):
                ronde.allreduce(x, name="w", compression=feedback, process_set=here(me))
            np.testing.assert_array_equal(feedback.residual("w"), before)

    run_all(2, program)


def test_a_payload_that_cannot_be_sent_is_refused_on_all_ranks() -> None:
    class Odd(Own):
        def compress(self, x: np.ndarray) -> Any:
            return (lambda: x) if self.rank == 1 else x, None

        def decompress(self, payload: Any, ctx: Any) -> np.ndarray:
            return payload() if callable(payload) else payload

    def program(me: Rank) -> None:
        x = np.ones(9, np.float32)
        with pytest.raises(Exception, match=r"pickle|Odd has failed on another rank"):
            ronde.allreduce(x, compression=Odd(me.rank), process_set=here(me))
        assert (ronde.allreduce(x, ronde.Sum, process_set=here(me)) == 2).all()  # and goes on

    run_all(2, program)


def test_an_interruption_in_a_compressor_ends_the_call_on_all_ranks() -> None:
    class Stops(Own):
        def compress(self, x: np.ndarray) -> Any:
            if self.rank == 1:
                raise KeyboardInterrupt
            return x.copy(), None

    def program(me: Rank) -> None:
        ronde.allreduce(np.ones(9, np.float32), compression=Stops(me.rank), process_set=here(me))

    first, second = run(2, program)
    assert isinstance(first, ronde.RankFailedError)
    assert "KeyboardInterrupt" in str(first)
    assert isinstance(second, KeyboardInterrupt)


def test_a_compressor_makes_no_calls_itself() -> None:
    class Calls(Own):
        def __init__(self, me: Rank) -> None:
            super().__init__(me.rank)
            self.me = me

        def compress(self, x: np.ndarray) -> Any:
            return ronde.allreduce(x, process_set=here(self.me)), None

    def program(me: Rank) -> None:
        x = np.ones(9, np.float32)
        with pytest.raises(
            ronde.RondeError, match="or by a compressor, while the same thread was in"
        ):
            ronde.allreduce(x, compression=Calls(me), process_set=here(me))
        assert (ronde.allreduce(x, ronde.Sum, process_set=here(me)) == 2).all()

    run_all(2, program)


# Numbers that must be those of Python and NumPy, as results depend on them.


@pytest.mark.parametrize("seed", [0, -3, 2**80])
@pytest.mark.parametrize("name", ["", "w", "g[0]", "größe", "n" * 300, "half \ud800"])
def test_keys_are_blake2b(seed: int, name: str) -> None:
    for step in (0, 7, 2**40):
        words = f"{seed} {step} {name}".encode("utf-8", "replace")
        wanted = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")
        assert _core.key_of(str(seed), step, name) == wanted


@pytest.mark.parametrize("length", range(100, 300, 9))
def test_keys_are_blake2b_for_all_lengths(length: int) -> None:
    name = "x" * length
    wanted = hashlib.blake2b(f"0 0 {name}".encode(), digest_size=8).digest()
    assert _core.key_of("0", 0, name) == int.from_bytes(wanted, "little")


@pytest.mark.parametrize(("rows", "columns"), [(5, 9), (40, 30), (100, 3)])
def test_first_factors_are_of_numpys_philox(rows: int, columns: int) -> None:
    key = _core.key_of("11", 3, "w")
    bits = np.random.Generator(np.random.Philox(key=key))
    rank = min(4, rows, columns)
    wanted = 2 * bits.random((rank, columns), np.float32) - 1
    _core.orthogonalise(wanted)
    found = _core.PowerSgd(4, "11").first(rows, columns, 3, "w")
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 127, 128, 129, 1000, 4097, 100_003])
def test_sums_of_squares_are_numpys(count: int) -> None:
    x = values(0, count)
    assert _core.sum_of_squares(x) == float(np.sum(np.square(x, dtype=np.float64)))


# What earlier versions pickled: attributes, of which some are the core's now.


def test_attributes_of_earlier_versions_are_taken_up() -> None:
    def restored(cls: type, attributes: dict[str, Any]) -> Any:
        made = cls.__new__(cls)
        made.__setstate__(attributes)
        return made

    right = np.ones((2, 5), np.float32)
    low_rank = restored(
        powersgd, {"rank": 2, "seed": 7, "_factors": {"w": right}, "_steps": {"w": 3}}
    )
    assert low_rank == powersgd(2, seed=7)
    assert low_rank.state_dict()["steps"] == {"w": 3}
    np.testing.assert_array_equal(low_rank.state_dict()["factors"]["w"], right)

    deep = dgc(0.1, clip=2.0, warmup_steps=4)
    for _ in range(2):
        ronde.allreduce(values(0, 90), name="w", compression=deep)
    attributes = {k: v for k, v in vars(deep).items() if k != "_native"}
    twin = restored(dgc, copy.deepcopy({**attributes, "_step": {"w": 1}}))
    x = values(0, 90, 2)
    wanted = ronde.allreduce(x, name="w", compression=deep)
    np.testing.assert_array_equal(ronde.allreduce(x, name="w", compression=twin), wanted)

    drawn = randomk(0.1)
    drawn.__setstate__({"_calls": 4, "_compressed": 9})
    assert drawn.__reduce__()[2] == {"_calls": 4, "_compressed": 9}

    scaled = shared_scale(3)
    scaled.__setstate__({"_calls": 1, "_compressed": 0})
    assert scaled.__reduce__()[2] == {"_calls": 1, "_compressed": 0}
