"""The choice of compression: by what is predicted and measured, agreed by all ranks, nothing lost by it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core
from ronde.compression import (
    auto,
    bf16,
    int4,
    int8,
    linear,
    powersgd,
    randomk,
    shared_scale,
    sign,
    topk,
)
from ronde.compression._auto import Bucket
from ronde.compression.prediction import predict
from threads import Rank, run_all

ronde.init()

SLOW = {"alpha": 1e-4, "overhead": 1e-5, "beta": 8e-8, "gamma": 2e-10}  # 100 Mbit/s
FAST = {"alpha": 1e-9, "overhead": 1e-9, "beta": 1e-13, "gamma": 1e-15}
CODEC = 1e-9, 1e-9  # seconds an element, to encode and to decode


def test_the_slower_the_link_the_more_is_gained() -> None:
    n, ranks = 1 << 20, 4
    exact = predict(None, [(n,)], ranks, SLOW)
    assert exact.wire_bytes == 2 * (ranks - 1) / ranks * 4 * n
    times = [
        predict(c, [(n,)], ranks, SLOW, speeds=CODEC).seconds
        for c in (bf16(), int8(), int4(), sign())
    ]
    assert sorted([exact.seconds, *times], reverse=True) == [exact.seconds, *times]
    assert (
        predict(None, [(n,)], ranks, FAST).seconds
        < predict(int4(), [(n,)], ranks, FAST, speeds=CODEC).seconds
    )


def test_sums_of_sparse_payloads_fill_up() -> None:
    n = 1 << 20
    few, many = (
        predict(topk(0.01), [(n,)], ranks, SLOW, speeds=CODEC).wire_bytes for ranks in (3, 1000)
    )
    payload = topk(0.01).payload_bytes(n)
    assert few == pytest.approx((payload + 3 * payload) * 2 / 3)
    assert many == pytest.approx((payload + 4 * n) * 0.999)


def test_sums_of_integers_need_wider_ones_for_more_ranks() -> None:
    n = 1 << 20
    for ranks, local_size, bytes_each in ((18, 1, 1), (19, 1, 2), (9, 2, 1), (10, 2, 2)):
        found = predict(shared_scale(4), [(n,)], ranks, SLOW, local_size=local_size, speeds=CODEC)
        summed = bytes_each * n + 4 * n / 1024
        assert found.wire_bytes == pytest.approx(2 * (ranks - 1) / ranks * summed / local_size)
    with pytest.raises(ValueError, match="4 bits of 4682 ranks do not fit int16"):
        predict(shared_scale(4), [(n,)], 4682, SLOW, speeds=CODEC)


def test_short_sparse_payloads_go_to_all_ranks() -> None:
    n, ranks = 1 << 14, 4
    short = predict(topk(0.01), [(n,)], ranks, SLOW, speeds=CODEC)
    assert short.wire_bytes == 3 * topk(0.01).payload_bytes(n)
    step = SLOW["alpha"] + 2 * SLOW["overhead"]
    assert short.wire == pytest.approx(step + short.wire_bytes * SLOW["beta"])


def test_random_entries_travel_without_positions() -> None:
    n, ranks = 1 << 20, 4
    found = predict(randomk(0.01), [(n,)], ranks, SLOW, speeds=CODEC)
    assert found.wire_bytes == pytest.approx(2 * 3 / 4 * 4 * n / 100, rel=1e-3)
    assert found.seconds == found.wire + found.codec


def test_nothing_is_predicted_to_cost_nothing() -> None:
    assert predict(int8(), [(100,)], 1, SLOW, speeds=CODEC).seconds == 0
    assert predict(None, [(0,)], 8, SLOW).seconds == 0


def gradient(rank: int, step: int) -> np.ndarray:
    random = np.random.default_rng([rank, step])
    return random.standard_normal((64, 512)).astype(np.float32)


def reduce(me: Rank, method: Any, step: int) -> np.ndarray:
    here: Any = SimpleNamespace(_communicator=me.communicator)
    x = np.zeros((64, 512), np.float32) if step < 0 else gradient(me.rank, step)
    return ronde.allreduce(x, ronde.Sum, name="w", compression=method, process_set=here)


def pretend(me: Rank, link: dict[str, float]) -> None:
    """The link is taken for this one, from now on."""
    me.communicator.set_link(_core.Link(**link))


@pytest.mark.parametrize("placement", [{}, {"machines": [0, 0, 1, 1]}], ids=["flat", "machines"])
def test_whatever_is_chosen_all_ranks_choose_it_and_nothing_is_lost(
    placement: dict[str, Any],
) -> None:
    size, steps = 4, 40

    def program(me: Rank) -> Any:
        pretend(me, SLOW)
        method = auto([int8(), shared_scale(), int4(), powersgd(), topk(0.01)])
        results = [reduce(me, method, step) for step in range(steps)]
        choices = method.choices()
        assert list(choices) == [("w",)]
        # Until nothing is left; exact steps among them carry all that is.
        results += [reduce(me, method, -1) for _ in range(130)]
        return np.sum(results, axis=0, dtype=np.float64), choices, sum(method.norms().values())

    found = run_all(size, program, **placement)
    given = np.sum(
        [gradient(r, s) for r in range(size) for s in range(steps)], axis=0, dtype=np.float64
    )
    assert all(choices == found[0][1] for _, choices, _ in found)
    held = sum(norm for *_, norm in found)
    for total, *_ in found:
        np.testing.assert_array_equal(total, found[0][0])
        # bfloat16 is tried too, and rounds.
        assert np.linalg.norm(total - given) <= held + 0.01 * np.linalg.norm(given)


def test_where_the_link_is_fast_nothing_is_tried_but_exact_reduction() -> None:
    def program(me: Rank) -> Any:
        pretend(me, FAST)
        method = auto()
        for step in range(10):
            reduce(me, method, step)
        assert not method._feeds_back(me.communicator, [(("w", 64 * 512),)])
        return method.choices()[("w",)]

    assert set(run_all(2, program)) <= {"exact", "bf16()"}


def test_within_one_machine_there_is_nothing_to_choose() -> None:
    def program(me: Rank) -> None:
        method = auto()
        for step in range(3):
            result = reduce(me, method, step)
            expected = np.sum([gradient(rank, step) for rank in range(2)], axis=0)
            np.testing.assert_allclose(result, expected, rtol=1e-6)
        assert method.choices() == {("w",): "exact"}
        assert not method._feeds_back(me.communicator, [(("w", 64 * 512),)])

    run_all(2, program, shared=True)


class Clock(threading.local):
    """The time of this thread, a rank, on which each byte that it sends takes 80 us, or `slower` times that
    by what is in use. Beside that, what really happens takes no time."""

    BETA = 8e-5
    real = staticmethod(time.perf_counter)
    ticks: Callable[[], float] | None = None

    def start(self, me: Rank, method: Any, slower: Callable[[str], float] = lambda name: 1) -> None:
        pretend(me, SLOW | {"beta": self.BETA})
        self.ahead, self.sent = 0.0, me.communicator.bytes_sent

        def ticks() -> float:
            sent = me.communicator.bytes_sent
            name = method.choices().get(("w",), "exact")
            self.ahead += (sent - self.sent) * self.BETA * slower(name)
            self.sent = sent
            return self.ahead

        self.ticks = ticks

    def __call__(self) -> float:
        return self.real() + (self.ticks() if self.ticks else 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    return made


EXACT_SECONDS = 64 * 512 * 4 * Clock.BETA  # of a call of two ranks
FIVE, SIX = (repr(linear(bits)).removeprefix("ronde.compression.") for bits in (5, 6))


def settled(
    clock: Clock,
    slower: dict[str, float],
    rest: float = 0.0,
    busy: Sequence[int] = (),
) -> tuple[str, list[str]]:
    """What is chosen of some kinds, and what has been in use, call by call. `slower`: by what factor than
    predicted; `rest`: seconds between two calls; calls of the numbers `busy` take three times as long."""

    def program(me: Rank) -> tuple[str, list[str]]:
        used: list[str] = []
        method = auto([int8(), linear(6), linear(5), int4()], min_loss_decrease=0)
        clock.start(me, method, lambda name: slower.get(name, 1) * (3 if len(used) in busy else 1))
        for step in range(40):
            reduce(me, method, step)
            clock.ahead += rest
            used.append(method.choices()[("w",)])
        return used[-1], used

    first, second = run_all(2, program)
    assert first == second
    return first


def test_the_fastest_is_chosen_and_what_is_hopeless_not_tried(clock: Clock) -> None:
    chosen, used = settled(clock, {})
    assert chosen == "int4()"
    assert "int4()" in used and not {"exact", "bf16()"} & set(used)


def test_predictions_that_fail_are_found_out(clock: Clock) -> None:
    chosen, used = settled(clock, {"int4()": 3})
    assert chosen == FIVE
    assert used.count("int4()") < 10
    # All candidates lose: bfloat16 it is.
    assert settled(clock, {"int4()": 9, FIVE: 7, SIX: 6, "int8()": 5})[0] == "bf16()"


@pytest.mark.parametrize("begin", [1, 6, 11])
def test_a_busy_time_does_not_change_the_choice(clock: Clock, begin: int) -> None:
    assert settled(clock, {}, busy=range(begin, begin + 5))[0] == "int4()"


def test_where_steps_are_long_the_more_exact_is_chosen(clock: Clock) -> None:
    assert settled(clock, {}, rest=0.1 * EXACT_SECONDS)[0] == "int4()"
    assert settled(clock, {}, rest=2 * EXACT_SECONDS)[0] in (FIVE, SIX)


def test_what_becomes_much_slower_is_tried_again(clock: Clock) -> None:
    def program(me: Rank) -> None:
        method = auto([int8(), int4()], min_loss_decrease=0)
        later: dict[str, float] = {}
        clock.start(me, method, lambda name: later.get(name, 1))
        for _ in range(30):
            reduce(me, method, 0)
        assert method.choices()[("w",)] == "int4()"
        later["int4()"] = 10
        for _ in range(60):
            reduce(me, method, 0)
        assert method.choices()[("w",)] == "int8()"

    run_all(2, program)


def trained(me: Rank, method: Any, steps: int) -> float:
    """Momentum SGD on a quadratic loss; gradients have noise of their own on each rank. The error left."""
    here: Any = SimpleNamespace(_communicator=me.communicator)
    target = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    x, velocity = np.zeros_like(target), np.zeros_like(target)
    for step in range(steps):
        noise = np.random.default_rng([step, me.rank]).standard_normal(x.shape)
        gradient = (x - target + noise).astype(np.float32)
        mean = ronde.allreduce(gradient, name="w", compression=method, process_set=here)
        velocity = np.float32(0.9) * velocity + mean
        x = x - np.float32(0.01) * velocity
    return float(np.linalg.norm(x - target) / np.linalg.norm(target))


def test_training_is_given_what_it_needs(clock: Clock) -> None:
    def program(me: Rank) -> tuple[str, float]:
        method, file = auto([int4(), topk(0.001)]), io.StringIO()
        clock.start(me, method)
        error = trained(me, method, 150)
        method.report(file)
        assert "too lossy" in file.getvalue()
        return method.choices()[("w",)], error

    first, second = run_all(2, program)
    assert first == second
    choice, error = first
    assert choice == "int4()"
    assert error < 0.5


def test_without_a_limit_on_the_loss_the_fastest_is_chosen(clock: Clock) -> None:
    def program(me: Rank) -> str:
        method = auto([topk(0.001)], min_loss_decrease=0.0)
        clock.start(me, method)
        trained(me, method, 60)
        return method.choices()[("w",)]

    assert set(run_all(2, program)) == {"topk(ratio=0.001)"}


def test_training_that_has_come_to_its_end_refuses_nothing(clock: Clock) -> None:
    """Gradients point to and fro then: those of one step are answered by the next."""

    def program(me: Rank) -> str:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        method = auto([int4()])
        clock.start(me, method)
        x = np.zeros((64, 512), np.float32)
        for step in range(300):
            noise = np.random.default_rng([step, me.rank]).standard_normal(x.shape)
            gradient = (x + noise).astype(np.float32)
            x = x - ronde.allreduce(gradient, name="w", compression=method, process_set=here)
        return method.choices()[("w",)]

    assert set(run_all(2, program)) == {"int4()"}


def test_the_report_says_what_was_predicted_measured_and_chosen() -> None:
    def program(me: Rank) -> str:
        pretend(me, SLOW)
        method, file = auto([sign(), int4()]), io.StringIO()
        method.report(file)
        assert "nothing has been reduced yet" in file.getvalue()
        for step in range(12):
            reduce(me, method, step)
        method.report(file)
        return file.getvalue()

    text = run_all(2, program)[0]
    for words in (
        "predicted ms",
        "measured ms",
        "MB sent",
        "residual",
        "exact",
        "bf16()",
        "sign()",
    ):
        assert words in text
    assert text.count("> ") == 1  # what is in use
    assert repr(eval(repr(auto([sign()])), {"ronde": ronde})) == repr(auto([sign()]))


def test_min_loss_decrease_is_from_0_to_1() -> None:
    with pytest.raises(ValueError, match=r"min_loss_decrease must be from 0 to 1, not 1\.5"):
        auto(min_loss_decrease=1.5)


def test_candidates_are_compressors() -> None:
    with pytest.raises(TypeError, match=r"a candidate must be a ronde\.compression\.Compressor"):
        auto([None])  # type: ignore[list-item]


def test_a_state_is_taken_up() -> None:
    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        pretend(me, SLOW)
        method, other = auto([int4()]), auto([int4()])
        for step in range(5):
            reduce(me, method, step)
        other.load_state_dict(method.state_dict(), here)
        assert other.norms() == method.norms()

    run_all(2, program)


def test_a_step_that_is_not_finite_loses_nothing_in_exact_calls_too() -> None:
    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        pretend(me, SLOW)
        method = auto([int4()])
        for step in range(4):
            reduce(me, method, step)
        state = method.state_dict()
        left = method.norms()
        again = auto([int4()])
        again.load_state_dict(state, here)  # and is about to try something else
        bad = np.full((64, 512), np.inf, np.float32)
        ronde.allreduce(bad, ronde.Sum, name="w", compression=again, process_set=here)
        assert again.norms() == left

    run_all(2, program)


def test_a_new_communicator_at_the_address_of_an_old_one_is_unknown() -> None:
    """It may get that address on some ranks only, and the others would begin with trials."""

    class Communicator:
        """One of none."""

    method = auto()
    first: Any = Communicator()
    method._buckets[first] = {(("w", 10),): Bucket([], [])}
    address = id(first)
    del first
    others: list[Any] = [Communicator()]
    while id(others[-1]) != address and len(others) < 1000:
        others.append(Communicator())
    assert id(others[-1]) == address
    assert others[-1] not in method._buckets
    assert not method.choices()


def test_the_report_names_a_bucket_by_its_first_array() -> None:
    method, file = auto(), io.StringIO()
    xs = [np.ones((64, 512), np.float32)] * 2
    ronde.grouped_allreduce(xs, ronde.Sum, "DistributedOptimizer", compression=method)
    method.report(file)
    assert "\nDistributedOptimizer[0] and 1 more  " in file.getvalue()


def test_process_sets_and_names_are_kept_apart() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        ronde.allreduce(np.ones((3, 4), np.float32), compression=auto())

    def program(me: Rank) -> None:
        method = auto()
        x = np.ones((64, 512), np.float32)
        ronde.allreduce(x, ronde.Sum, name="w", compression=method)  # of one rank
        pretend(me, SLOW)
        for step in range(3):
            reduce(me, method, step)
        file = io.StringIO()
        method.report(file)
        assert file.getvalue().count(" exact ") == 2

    run_all(2, program)
