"""Compression of every floating type: computed in float32, given back in the type that came."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import ronde
from ronde import compression as rc
from threads import Rank, run_all

ronde.init()

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float64]


class Halves:
    """A compressor of the user's own, which is always given float32."""

    def compress(self, x: np.ndarray) -> Any:
        assert x.dtype == np.float32
        return x.astype(np.float16), None

    def decompress(self, payload: np.ndarray, ctx: None) -> np.ndarray:
        return payload


METHODS: dict[str, Any] = {
    "int8": rc.int8,
    "randomk": lambda: rc.randomk(0.5),
    "feedback": lambda: rc.ErrorFeedback(rc.int4()),
    "shared scale": rc.shared_scale,
    "powersgd": lambda: rc.ErrorFeedback(rc.powersgd(2)),
    "dgc": lambda: rc.dgc(0.5),
    "auto": rc.auto,
    "own": Halves,
}


def here(me: Rank) -> Any:
    return SimpleNamespace(_communicator=me.communicator)


def gradient(rank: int, step: int, dtype: Any) -> np.ndarray:
    """Values that all the types hold exactly, so that only what comes out is rounded."""
    random = np.random.default_rng([rank, step])
    return random.integers(-100, 100, (24, 30)).astype(dtype)


def reduced(me: Rank, method: Any, dtype: Any, in_place: bool) -> list[np.ndarray]:
    results = []
    for step in range(3):
        x = gradient(me.rank, step, dtype)
        call = ronde.grouped_allreduce_ if in_place else ronde.grouped_allreduce
        xs = [x, x.astype(np.float32)]
        (result, _) = call(xs, name="g", compression=method, process_set=here(me))
        assert (result is x) == in_place
        assert result.dtype == dtype
        if not in_place:
            np.testing.assert_array_equal(x, gradient(me.rank, step, dtype))
        results.append(result)
    return results


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_every_floating_type_and_computes_in_float32(
    name: str, dtype: Any
) -> None:
    def program(me: Rank) -> Any:
        # Nothing is tried by auto, which would choose by the clock.
        make = (lambda: rc.auto([])) if name == "auto" else METHODS[name]
        wanted = reduced(me, make(), np.float32, False)
        return [(wanted, reduced(me, make(), dtype, in_place)) for in_place in (False, True)]

    for ways in run_all(2, program):
        for wanted, found in ways:
            for a, b in zip(wanted, found, strict=True):
                # bfloat16, which auto tries, is exact for these values too.
                np.testing.assert_array_equal(a.astype(dtype), b)


def test_integers_of_a_group_are_exact_and_by_themselves_refused() -> None:
    xs = [np.full((2, 2), 3.0), np.arange(4)]
    group = ronde.grouped_allreduce(xs, ronde.Sum, compression=rc.int8())
    for x, y in zip(xs, group, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    for call in (
        lambda: ronde.allreduce(xs[1], ronde.Sum, compression=rc.int8()),
        lambda: ronde.grouped_allreduce(xs, ronde.Sum, compression=[None, rc.int8()]),
    ):
        with pytest.raises(TypeError, match="compression needs a floating type, not int64"):
            call()
    stepped: list[Any] = []
    opt = ronde.DistributedOptimizer(
        lambda params, grads: stepped.append(grads), op=ronde.Sum, compression=rc.int8()
    )
    opt(None, [xs[0], np.ones((2, 2), int)])
    assert [grad.dtype for grad in stepped[0]] == [np.float64, np.int64]


@pytest.mark.parametrize("large", [1e300, -3e38, 2e38])
@pytest.mark.parametrize("name", ["int8", "feedback", "dgc", "own"])
def test_float64_beyond_float32_is_reduced_exactly_on_all_ranks(name: str, large: float) -> None:
    """2e38 fits float32, but not the sum of two."""

    def program(me: Rank) -> Any:
        method = METHODS[name]()
        for step in range(2):
            x = np.full((3, 4), 1.0 + me.rank)
            x[1, 1] = large if (me.rank == 1 or abs(large) < 3e38) and step else 7.0
            result = ronde.allreduce(x, ronde.Sum, "g", compression=method, process_set=here(me))
        return result

    for result in run_all(2, program):
        assert result[0, 0] == 3.0
        assert result[1, 1] == (2 * large if abs(large) < 3e38 else large + 7.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("make", [rc.int8, rc.powersgd, rc.dgc])
def test_payloads_know_the_type(make: Any, dtype: Any) -> None:
    c, x = make(), gradient(0, 0, dtype)
    payload, ctx = c.compress(x)
    y = c.decompress(payload, ctx)
    same, ctx = c.compress(x.astype(np.float32))
    np.testing.assert_array_equal(payload, same)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, c.decompress(same, ctx).astype(dtype))


def test_a_payload_of_what_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="range of float32"):
        rc.int8().compress(np.array([1e39]))
    payload, ctx = rc.bf16().compress(np.array([np.inf, np.nan, 1.0]))
    np.testing.assert_array_equal(rc.bf16().decompress(payload, ctx), [np.inf, np.nan, 1.0])
