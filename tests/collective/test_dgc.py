"""Deep gradient compression against its formulas, in float64 where that is the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde.compression import dgc
from threads import Rank, run_all

ronde.init()

COUNT = 900
PLACEMENTS: list[dict[str, Any]] = [{}, {"shared": True}, {"machines": [0, 0, 1, 1]}]


def gradient(rank: int, step: int) -> np.ndarray:
    # Few bits, so that sums are exact, and no two are equal in absolute terms.
    random = np.random.default_rng([rank, step])
    whole = random.permutation(COUNT) + 1 + COUNT * rank
    return (whole * random.choice([-1, 1], COUNT) / 1024).astype(np.float32).reshape(30, 30)


def reduce(me: Rank, x: np.ndarray, method: Any, op: Any = ronde.Sum) -> np.ndarray:
    here: Any = SimpleNamespace(_communicator=me.communicator)
    return ronde.allreduce(x, op, name="w", compression=method, process_set=here)


def book(ranks: int, steps: int, ratios: list[float], momentum: float) -> list[np.ndarray]:
    """Lin et al. 2018, algorithm 4, without clipping."""
    u, v, results = np.zeros((ranks, COUNT)), np.zeros((ranks, COUNT)), []
    for step in range(steps):
        total = np.zeros(COUNT)
        for rank in range(ranks):
            u[rank] = momentum * u[rank] + gradient(rank, step).ravel()
            v[rank] += u[rank]
            sent = np.argsort(-np.abs(v[rank]), kind="stable")[: round(ratios[step] * COUNT)]
            total[sent] += v[rank, sent]
            v[rank, sent] = u[rank, sent] = 0
        results.append(total.reshape(30, 30))
    return results


@pytest.mark.parametrize("placement", PLACEMENTS, ids=["messages", "one machine", "two machines"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_it_is_that_of_the_paper_wherever_the_ranks_are(
    size: int, placement: dict[str, Any]
) -> None:
    if "machines" in placement and size != 4:
        placement = {}
    expected = book(size, 6, [0.1] * 6, 0.5)

    def program(me: Rank) -> None:
        method = dgc(0.1, momentum=0.5)
        for step in range(6):
            result = reduce(me, gradient(me.rank, step), method)
            np.testing.assert_allclose(result, expected[step], rtol=1e-6)

    run_all(size, program, **placement)


def test_a_warm_up_leads_from_a_quarter_to_the_ratio_by_equal_factors() -> None:
    method = dgc(0.25 / 16, warmup_steps=4)
    ratios = [method.ratio_at(step) for step in range(6)]
    np.testing.assert_allclose(ratios, [0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.015625])
    assert dgc(0.5, warmup_steps=4).ratio_at(0) == 0.5
    expected = book(2, 6, ratios, 0.9)

    def program(me: Rank) -> None:
        mine = dgc(0.25 / 16, warmup_steps=4)
        for step in range(6):
            result = reduce(me, gradient(me.rank, step), mine)
            np.testing.assert_allclose(result, expected[step], rtol=1e-5)

    run_all(2, program)


def test_clipping_is_local() -> None:
    def program(me: Rank) -> None:
        x = gradient(me.rank, 0)
        limit = 5 / np.sqrt(2)
        assert np.linalg.norm(x) > limit
        clipped = (x * (limit / np.linalg.norm(x))).astype(np.float32)
        for given, expected in ((x, clipped), (clipped / 2, clipped / 2)):
            found = reduce(me, given, dgc(1.0, clip=5))
            everywhere = reduce(me, expected, None)
            np.testing.assert_allclose(found, everywhere, rtol=1e-5, atol=1e-6)

    run_all(2, program)


def test_a_restored_run_goes_on_bit_for_bit() -> None:
    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator)
        whole, first = dgc(0.05, warmup_steps=4), dgc(0.05, warmup_steps=4)
        expected = [reduce(me, gradient(me.rank, step), whole) for step in range(6)]
        found = [reduce(me, gradient(me.rank, step), first) for step in range(3)]
        second = dgc(0.05, warmup_steps=4)
        second.load_state_dict(first.state_dict(), here)
        found += [reduce(me, gradient(me.rank, step), second) for step in range(3, 6)]
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_array_equal(x, y)

    run_all(3, program)


def test_half_the_ranks_take_over_what_was_accumulated() -> None:
    def first(me: Rank) -> Any:
        method = dgc(0.05)
        for step in range(3):
            reduce(me, gradient(me.rank, step), method, ronde.Average)
        return method.state_dict()

    states = run_all(4, first)
    held = sum(state["residuals"]["w"].astype(np.float64) for state in states) / 4
    moving = sum(state["velocity"]["residuals"]["w"].astype(np.float64) for state in states) / 4

    def then(me: Rank) -> Any:
        method = dgc(1.0)
        method.load_state_dict(states, SimpleNamespace(_communicator=me.communicator))  # type: ignore
        return reduce(me, np.zeros((30, 30), np.float32), method, ronde.Average)

    for result in run_all(2, then):
        np.testing.assert_allclose(result.ravel(), held + 0.9 * moving, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0}, "ratio must be above 0"),
        ({"momentum": 1}, "momentum must be at least 0"),
        ({"clip": 0}, "clip must be positive"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dgc(**options)


def test_it_shows_what_it_is_and_compresses_by_itself() -> None:
    method = dgc(0.1, clip=2.0, warmup_steps=3)
    assert repr(eval(repr(method), {"ronde": ronde})) == repr(method)
    x = gradient(0, 0)
    found = method.decompress(*method.compress(x))
    assert np.count_nonzero(found) == 90
    np.testing.assert_array_equal(found[found != 0], x[found != 0])
