"""Error feedback of whole calls: nothing is lost by another number of ranks, other placements, other groups,
or skipped steps."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from recorded import JOBS
from ronde.compression import (
    ErrorFeedback,
    auto,
    dgc,
    int4,
    powersgd,
    randomk,
    shared_scale,
    sign,
    topk,
)
from threads import Rank, run_all

ronde.init()

SHAPES = ((40, 30), (7, 100), (300,))


class Halves:
    """A compressor of the user's own: every other value, which of them the context says."""

    def compress(self, x: np.ndarray) -> Any:
        first = int(abs(float(x.sum())) * 1e4) % 2
        return x.reshape(-1)[first::2].copy(), (first, x.shape)

    def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
        first, shape = ctx
        x = np.zeros(shape, np.float32)
        x.reshape(-1)[first::2] = payload
        return x


class Fp16:
    """As Horovod's: the sum of what travels stands for the sum of the values."""

    sums = True

    @staticmethod
    def compress(x: np.ndarray) -> Any:
        return x.astype(np.float16), x.dtype

    @staticmethod
    def decompress(x: np.ndarray, ctx: Any) -> np.ndarray:
        return x.astype(ctx)


MAKERS: dict[str, Any] = {
    "int4": int4,
    "sign": sign,
    "topk": lambda: topk(0.1),
    "randomk": lambda: randomk(0.1, seed=3),
    "powersgd": lambda: powersgd(2),
    "shared scale": shared_scale,
    "own": Halves,
    "own sums": Fp16,
}


def gradients(rank: int, step: int) -> list[np.ndarray]:
    random = np.random.default_rng([rank, step])
    return [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def zeros() -> list[np.ndarray]:
    return [np.zeros(shape, np.float32) for shape in SHAPES]


def reduce(me: Rank, xs: list[np.ndarray], compression: Any, **options: Any) -> list[np.ndarray]:
    options = {"name": "g", **options}
    return ronde.grouped_allreduce(
        xs, compression=compression, process_set=process_set(me), **options
    )


def process_set(me: Rank) -> Any:
    return SimpleNamespace(_communicator=me.communicator)


def total(results: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.sum(each, axis=0, dtype=np.float64) for each in zip(*results, strict=True)]


def steps(me: Rank, feedback: ErrorFeedback, op: Any, count: int) -> list[np.ndarray]:
    return total([reduce(me, gradients(me.rank, step), feedback, op=op) for step in range(count)])


def drained(me: Rank, feedback: ErrorFeedback, op: Any) -> list[np.ndarray]:
    """The sum of what comes until nothing is left, without further gradients."""
    found = [reduce(me, zeros(), feedback, op=op)]
    while ronde.allreduce(max(feedback.norms().values()), ronde.Max, process_set=process_set(me)):
        found.append(reduce(me, zeros(), feedback, op=op))
    return total(found)


@pytest.mark.parametrize("op", [ronde.Sum, ronde.Average], ids=str)
@pytest.mark.parametrize("after", JOBS)
@pytest.mark.parametrize("before", ["2", "3", "4", "2 x 2"])
def test_what_residuals_would_add_to_the_result_outlives_the_job(
    before: str, after: str, op: Any
) -> None:
    size, placement = JOBS[before]

    def first(me: Rank) -> Any:
        feedback = ErrorFeedback(topk(0.25))
        return steps(me, feedback, op, 3), feedback.state_dict()

    results = run_all(size, first, **placement)
    states = [state for _, state in results]

    def then(me: Rank) -> Any:
        feedback = ErrorFeedback(topk(0.25))
        feedback.load_state_dict(states, process_set(me))
        return drained(me, feedback, op)

    size_after, placement_after = JOBS[after]
    given = total([total([gradients(rank, step) for step in range(3)]) for rank in range(size)])
    divisor = size if op is ronde.Average else 1
    for later in run_all(size_after, then, **placement_after):
        for early, late, all_of_it in zip(results[0][0], later, given, strict=True):
            np.testing.assert_allclose(early + late, all_of_it / divisor, atol=2e-5)


@pytest.mark.parametrize("op", [ronde.Sum, ronde.Average], ids=str)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_not_in_the_results_is_in_the_residuals(name: str, job: str, op: Any) -> None:
    size, placement = JOBS[job]

    def program(me: Rank) -> Any:
        feedback = ErrorFeedback(MAKERS[name]())
        sent = steps(me, feedback, op, 4)
        left = [feedback.residual(f"g[{i}]").reshape(shape) for i, shape in enumerate(SHAPES)]
        return sent, left

    results = run_all(size, program, **placement)
    given = total([total([gradients(rank, step) for step in range(4)]) for rank in range(size)])
    held = total([left for _, left in results])
    divisor = size if op is ronde.Average else 1
    # A sum of float16 is rounded where it is formed, and nobody keeps what that leaves out.
    error = 0.02 if name == "own sums" else 5e-5
    for sent, _ in results:
        for i in range(len(SHAPES)):
            assert sent[i].tobytes() == results[0][0][i].tobytes()
            np.testing.assert_allclose(sent[i] + held[i] / divisor, given[i] / divisor, atol=error)


@pytest.mark.parametrize("name", ["int4", "powersgd", "shared scale", "own"])
@pytest.mark.parametrize("after", ["1", "2", "3", "2 x 2"])
def test_residuals_of_all_compressors_go_to_other_jobs(name: str, after: str) -> None:
    def first(me: Rank) -> Any:
        feedback = ErrorFeedback(MAKERS[name]())
        steps(me, feedback, ronde.Average, 3)
        return feedback.state_dict()

    states = run_all(4, first)
    waits = total([[state["residuals"][f"g[{i}]"] for i in range(3)] for state in states])

    def then(me: Rank) -> Any:
        feedback = ErrorFeedback(MAKERS[name]())
        feedback.load_state_dict(states, process_set(me))
        sent = reduce(me, zeros(), feedback, op=ronde.Average)
        return sent, [feedback.residual(f"g[{i}]") for i in range(3)]

    size, placement = JOBS[after]
    results = run_all(size, then, **placement)
    held = total([left for _, left in results])
    for i in range(3):
        comes = results[0][0][i].ravel() + held[i] / size
        np.testing.assert_allclose(comes, waits[i] / 4, atol=5e-5)


def test_compressors_of_ones_own_must_give_back_what_they_got() -> None:
    class Wrong(Halves):
        def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
            return payload

    x = np.ones((3, 4), np.float32)
    with pytest.raises(
        ValueError, match=r"Wrong has decompressed an array of shape .* to one of shape"
    ):
        ronde.allreduce(x, name="x", compression=ErrorFeedback(Wrong()))
    with pytest.raises(TypeError, match="compression must be one of"):
        ronde.allreduce(x, compression=Wrong)
    opt = ronde.DistributedOptimizer(lambda params, grads: grads, compression=Halves(), name="o")
    assert sum(np.count_nonzero(opt(None, [x])[0]) for _ in range(2)) >= 12


@pytest.mark.parametrize("job", ["2", "3", "2 x 2", "mixed"])
def test_other_groups_of_the_same_arrays_lose_nothing(job: str) -> None:
    size, placement = JOBS[job]

    def program(me: Rank) -> Any:
        feedback = ErrorFeedback(topk(0.25))
        found = [steps(me, feedback, ronde.Average, 2)]
        xs = gradients(me.rank, 2)
        found.append(
            [  # each by itself
                ronde.allreduce(
                    x, name=f"g[{i}]", compression=feedback, process_set=process_set(me)
                )
                for i, x in enumerate(xs)
            ]
        )
        found.append(drained(me, feedback, ronde.Average))
        return total(found)

    given = total([total([gradients(rank, step) for step in range(3)]) for rank in range(size)])
    for result in run_all(size, program, **placement):
        for found, all_of_it in zip(result, given, strict=True):
            np.testing.assert_allclose(found, all_of_it / size, atol=2e-5)


@pytest.mark.parametrize("job", ["2", "2 x 2", "2 sharing"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_on_any_rank_leaves_all_as_it_was(job: str, bad: float) -> None:
    size, placement = JOBS[job]

    def program(me: Rank) -> Any:
        feedback, undisturbed = ErrorFeedback(int4()), ErrorFeedback(int4())
        steps(me, feedback, ronde.Average, 2)
        steps(me, undisturbed, ronde.Average, 2)
        overflown = gradients(me.rank, 2)
        if me.rank == size - 1:
            overflown[2][5] = bad  # in one of three arrays, on one rank
        ways = [feedback, feedback, None]
        for x, y in zip(reduce(me, overflown, ways), gradients(0, 0), strict=True):
            assert np.isfinite(x).sum() == x.size - (x.shape == y.shape == (300,))
        np.testing.assert_equal(feedback.norms(), undisturbed.norms())
        after = reduce(me, gradients(me.rank, 3), feedback)
        for x, y in zip(after, reduce(me, gradients(me.rank, 3), undisturbed), strict=True):
            np.testing.assert_array_equal(x, y)

    run_all(size, program, **placement)


def test_states_of_other_ranks_and_jobs_are_refused() -> None:
    def first(me: Rank) -> Any:
        feedback = ErrorFeedback(topk(0.1))
        steps(me, feedback, ronde.Sum, 1)
        return feedback.state_dict()

    states = run_all(3, first)

    def refuse(me: Rank) -> None:
        feedback, here = ErrorFeedback(topk(0.1)), process_set(me)
        for given, words in (
            (states[0], "give the states of all ranks, in a list"),
            (states[:2], "number 0 of 2 is that of rank 0 of 3"),
            (states[::-1], "number 0 of 3 is that of rank 2 of 3"),
            ([], "no states"),
        ):
            with pytest.raises(ValueError, match=words):
                feedback.load_state_dict(given, here)
        with pytest.raises(ValueError, match=r"belongs to ronde\.compression\.topk"):
            ErrorFeedback(int4()).load_state_dict(states, here)

    run_all(2, refuse)

    def other_rank(me: Rank) -> None:
        with pytest.raises(ValueError, match=r"state of rank \d, and this is rank \d"):
            ErrorFeedback(topk(0.1)).load_state_dict(states[(me.rank + 1) % 3], process_set(me))

    run_all(3, other_rank)


def test_two_arrays_of_one_name_are_refused() -> None:
    class Same:
        def __repr__(self) -> str:
            return "same"

    grads = {Same(): np.ones((2, 2), np.float32), Same(): np.ones((2, 3), np.float32)}
    opt = ronde.DistributedOptimizer(lambda params, grads: params, compression=int4())
    with pytest.raises(ValueError, match="two arrays of this call have the name"):
        opt(None, grads)


def test_residuals_follow_the_scale_of_gradients() -> None:
    def program(me: Rank) -> None:
        feedback, other = ErrorFeedback(topk(0.1)), ErrorFeedback(topk(0.1))
        steps(me, feedback, ronde.Sum, 2)
        other.load_state_dict(feedback.state_dict(), process_set(me))
        feedback.rescale(0.5)
        halves = [x / 2 for x in gradients(me.rank, 2)]
        for x, y in zip(
            reduce(me, halves, feedback), reduce(me, gradients(me.rank, 2), other), strict=True
        ):
            np.testing.assert_array_equal(x, y / 2)

    run_all(2, program)


def test_every_call_is_moved_to_another_placement() -> None:
    xs = {name: np.random.default_rng(i).standard_normal((30, 40)) for i, name in enumerate("ab")}

    def separate(me: Rank, feedback: ErrorFeedback, name: str, factor: float) -> np.ndarray:
        x = (factor * (1 + me.rank) * xs[name]).astype(np.float32)
        here = process_set(me)
        result = ronde.allreduce(x, ronde.Sum, name=name, compression=feedback, process_set=here)
        return np.asarray(result, np.float64)

    def first(me: Rank) -> Any:
        feedback = ErrorFeedback(topk(0.25))
        sent = {name: separate(me, feedback, name, 1.0) for name in xs}
        return sent, feedback.state_dict()

    before = run_all(4, first)

    def then(me: Rank) -> Any:
        feedback = ErrorFeedback(topk(0.25))
        feedback.load_state_dict([state for _, state in before], process_set(me))
        return {name: sum(separate(me, feedback, name, 0.0) for _ in range(12)) for name in xs}

    for later in run_all(4, then, machines=[0, 0, 1, 1]):
        for name, x in xs.items():
            np.testing.assert_allclose(before[0][0][name] + later[name], 10 * x, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: ErrorFeedback(int4()), lambda: dgc(0.1), auto])
def test_copies_keep_what_was_left_out(make: Any) -> None:
    def program(me: Rank) -> None:
        method = make()
        steps(me, method, ronde.Sum, 3)
        for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
            assert twin.norms() == method.norms()
            twin.rescale(0.0)
            assert not any(twin.norms().values())
            for x in reduce(me, zeros(), twin, op=ronde.Sum):
                # (With a velocity there is more to come than what was left out: that was scaled too.)
                assert not x.any()

    run_all(2, program)


def test_low_rank_sends_what_waits_where_it_reduces_exactly() -> None:
    def first(me: Rank) -> Any:
        feedback = ErrorFeedback(powersgd(2))
        steps(me, feedback, ronde.Sum, 2)
        return feedback.state_dict()

    states = run_all(2, first)
    waits = total([[state["residuals"][f"g[{i}]"] for i in range(3)] for state in states])

    def then(me: Rank) -> Any:
        feedback = ErrorFeedback(powersgd(2))
        feedback.load_state_dict(states, process_set(me))
        found = reduce(me, zeros(), feedback, op=ronde.Sum)
        assert not any(feedback.norms().values())
        return found

    for size, placement in ((1, {}), (2, {"shared": True})):
        for found in run_all(size, then, **placement):
            for x, y in zip(found, waits, strict=True):
                np.testing.assert_allclose(x.ravel(), y, atol=1e-5)


def test_a_number_may_be_scaled() -> None:
    def program(me: Rank) -> None:
        x = np.array(3.0, np.float32)
        here = process_set(me)
        ways: list[Any] = [ErrorFeedback(int4()), ErrorFeedback(Halves()), shared_scale(8)]
        for method in (*ways, dgc(1.0), powersgd()):
            y = ronde.allreduce(
                x, ronde.Sum, name="w", compression=method, prescale_factor=2, process_set=here
            )
            assert y.shape == ()
            assert y in (0, 12) or abs(y - 12) < 1  # half of one value may be none

    run_all(2, program)


def test_a_compressor_that_fails_on_one_rank_fails_on_all() -> None:
    class Moody(Halves):
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def compress(self, x: np.ndarray) -> Any:
            if self.rank == 1:
                raise ArithmeticError("not today")
            return super().compress(x)

    def program(me: Rank) -> None:
        here, x = process_set(me), np.ones((4, 4), np.float32)
        error = ArithmeticError if me.rank == 1 else ronde.RondeError
        with pytest.raises(error, match=r"not today|Moody has failed on another rank"):
            ronde.allreduce(x, compression=Moody(me.rank), process_set=here)
        assert (ronde.allreduce(x, ronde.Sum, process_set=here) == 2).all()  # and goes on

    run_all(2, program)


def test_what_is_chosen_by_a_function_keeps_its_state() -> None:
    def choose(key: Any, x: np.ndarray) -> Any:
        return ErrorFeedback(topk(0.01)) if key == "w" else powersgd(2)

    opt = ronde.DistributedOptimizer(lambda params, grads: grads, compression=choose, name="f")
    grads = {"w": gradients(0, 0)[0], "v": gradients(0, 0)[1]}
    for _ in range(3):
        opt(None, grads)
    assert len(opt._ronde_reducer.choice._kept) == 2


def test_classes_are_compressors_only_where_they_need_no_object() -> None:
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(ronde.allreduce(x, name="c", compression=Fp16), x)
    opt = ronde.DistributedOptimizer(lambda params, grads: grads, compression=Fp16, name="c")
    np.testing.assert_array_equal(opt(None, [x])[0], x)
    for wrong in (powersgd, dgc, Halves):
        with pytest.raises(TypeError, match=r"call it|compression must be one of"):
            ronde.DistributedOptimizer(lambda params, grads: grads, compression=wrong)
    with pytest.raises(TypeError, match="without ErrorFeedback"):
        ErrorFeedback(dgc())
