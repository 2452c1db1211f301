"""Integers with shared scales, by themselves: maxima of blocks, what is rounded, and sums of it. Payloads
are among those of test_quantised.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import COUNTS, FINITE, vector
from reference import integers, levels_of, random_numbers, step_of
from ronde import _core

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinity is meant

SIMD = _core.simd_levels()
INT8, INT16 = np.dtype(np.int8), np.dtype(np.int16)

kinds = st.sampled_from([*FINITE, "any"])
finite_kinds = st.sampled_from(FINITE)
counts = st.one_of(st.sampled_from(COUNTS), st.integers(0, 5000))
seeds = st.integers(0, 2**20)
bits = st.integers(2, 8)
blocks = st.sampled_from([128, 384, 1024, 4096])
roundings = st.sampled_from(["nearest", "stochastic"])


def make(bits: int = 4, block: int = 1024, rounding: str = "nearest", simd: str = "") -> Any:
    return _core.Compressor.shared_scale(
        bits, block, _core.Rounding.__members__[rounding], simd=simd
    )


def cut(x: Any, block: int) -> list[Any]:
    return [x[at : at + block] for at in range(0, x.size, block)]


def steps(maxima: Any, bits: int) -> Any:
    """That of each block, in float32."""
    found = [
        step_of(np.array([each]), bits, "max") if np.isfinite(each) else np.nan for each in maxima
    ]
    return np.array(found, np.float64).astype(np.float32)


@settings(deadline=None)
@given(kinds, counts, seeds, blocks, st.booleans(), st.sampled_from(SIMD))
def test_maxima_are_those_of_blocks(
    kind: str, count: int, seed: int, block: int, feedback: bool, simd: str
) -> None:
    x = vector(kind, count, seed)
    residual = vector("normal", count, seed + 1) if feedback else None
    total = x if residual is None else x + residual
    before = None if residual is None else residual.copy()
    found = make(block=block, simd=simd).maxima(x, residual)
    wanted = [np.abs(each).max() for each in cut(total, block)]
    np.testing.assert_array_equal(
        np.nan_to_num(found, posinf=np.nan), np.nan_to_num(wanted, posinf=np.nan)
    )
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    assert residual is None or residual.tobytes() == before.tobytes()


@settings(deadline=None)
@given(bits, blocks, roundings, finite_kinds, counts, seeds, st.sampled_from([INT8, INT16]))
def test_integers_are_those_of_the_reference(
    bits: int, block: int, rounding: str, kind: str, count: int, seed: int, dtype: Any
) -> None:
    """For maxima of other ranks too, greater than this rank's own."""
    x, key = vector(kind, count, seed), seed * 0x123456789AB
    results = []
    for simd in SIMD:
        c = make(bits, block, rounding, simd)
        maxima = c.maxima(x) * np.float32(1 + seed % 3)
        maxima[~np.isfinite(maxima)] = np.finfo(np.float32).max
        residual = np.zeros(count, np.float32)
        q = c.quantise(x, maxima, dtype, residual, key)
        assert (q.dtype, q.shape) == (dtype, (count,))
        assert q.tobytes() == c.quantise(x, maxima, dtype, None, key).tobytes()
        out = np.full(count, 7, np.float32)
        c.dequantise(q, maxima, out, 0.75)
        results.append(b"".join(each.tobytes() for each in (maxima, q, residual, out)))
    assert len(set(results)) == 1
    for i, (part, step) in enumerate(zip(cut(x, block), steps(maxima, bits), strict=True)):
        at = slice(i * block, i * block + part.size)
        draws = None if rounding == "nearest" else random_numbers(part.size, key, i * block)
        np.testing.assert_array_equal(q[at], integers(part, step, bits, draws))
        sent = (q[at] * step).astype(np.float32)
        assert (residual[at] == part - sent).all()
        wide = np.float64(step) * 0.75
        np.testing.assert_array_equal(out[at], (q[at] * wide).astype(np.float32))
        if step > 0:
            bound = (0.5 if rounding == "nearest" else 1) * (1 + 2**-16) * np.float64(step)
            assert (np.abs(part.astype(np.float64) - q[at] * np.float64(step)) <= bound).all()
            assert np.abs(q[at]).max() <= levels_of(bits)


@settings(deadline=None)
@given(bits, roundings, finite_kinds, counts, seeds)
def test_what_is_sent_and_the_residual_are_the_input(
    bits: int, rounding: str, kind: str, count: int, seed: int
) -> None:
    c, x = make(bits, 1024, rounding), vector(kind, count, seed)
    residual = np.float32(0.01) * vector(kind, count, seed + 1)
    total = x + residual
    maxima, sent = c.maxima(x, residual), np.empty_like(x)
    c.dequantise(c.quantise(x, maxima, INT16, residual, seed), maxima, sent)
    exact = (total.astype(np.float64) - sent).astype(np.float32)
    good = np.isfinite(sent)  # not so where the sum was infinite before
    assert (residual[good] == exact[good]).all()
    assert not residual[~good].any()


def test_integers_are_exact_where_the_step_is_a_power_of_two() -> None:
    c, random = make(8), np.random.default_rng(1)
    xs = [np.rint(random.uniform(-127, 127, 3000)).astype(np.float32) for _ in range(5)]
    maxima = np.full(3, 127, np.float32)  # a step of 1
    residual = np.zeros(3000, np.float32)
    total = np.sum([c.quantise(x, maxima, INT16, residual) for x in xs], axis=0, dtype=np.int16)
    out = np.empty(3000, np.float32)
    for factor in (1.0, 0.5, 1 / 5):
        c.dequantise(total, maxima, out, factor)
        exact = np.sum(xs, axis=0, dtype=np.float64)
        np.testing.assert_array_equal(out, (exact / round(1 / factor)).astype(np.float32))
    assert not residual.any()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [INT8, INT16], ids=str)
def test_blocks_that_are_not_finite_are_nan_and_leave_nothing(bad: float, dtype: Any) -> None:
    """On the rank that has found it, and on the others, which learn of it by the maxima."""
    c = make()
    x = vector("normal", 3000)
    x[1500] = bad
    maxima = c.maxima(x)
    assert np.isfinite(maxima).tolist() == [True, False, True]
    for values in (x, vector("normal", 3000, 1)):
        residual, out = vector("normal", 3000, 2), np.empty_like(x)
        q = c.quantise(values, maxima, dtype, residual)
        c.dequantise(q, maxima, out)
        block = slice(1024, 2048)
        assert np.isnan(out[block]).all()
        assert not q[block].any()
        assert not residual[block].any()
        assert np.isfinite(np.delete(out, np.r_[block])).all()


def test_extremes_stay_finite() -> None:
    c, limits = make(), np.finfo(np.float32)
    x = np.full(1024, limits.max)
    maxima, residual, out = c.maxima(x), np.zeros_like(x), np.empty_like(x)
    q = c.quantise(x, maxima, INT8, residual)
    assert (q == 7).all()
    c.dequantise(q * np.int8(3), maxima, out)  # a sum of three of them is more than float32 holds
    assert np.isposinf(out).all()
    c.dequantise(q * np.int8(3), maxima, out, 1 / 3)  # their mean is not
    np.testing.assert_allclose(out, limits.max, rtol=1e-6)
    for tiny in (limits.smallest_subnormal, limits.tiny, 0.0):
        x[...] = tiny
        maxima, residual[...] = c.maxima(x), 0
        c.dequantise(c.quantise(x, maxima, INT8, residual), maxima, out)
        assert not out.any()  # below 2^-126 a step would lose precision
        np.testing.assert_array_equal(residual, x)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_stochastic_rounding_is_right_on_average(bits: int) -> None:
    """The mean of many draws lies within five standard deviations, for each element and for all."""
    c, x, draws = make(bits, 1024, "stochastic"), vector("normal", 1024), 4000
    assert c.unbiased
    maxima = 2 * c.maxima(x)  # another rank has greater ones
    step, sums = np.float64(steps(maxima, bits)[0]), np.zeros(x.size)
    for key in range(draws):
        sums += c.quantise(x, maxima, INT8, None, key)
    error = sums / draws - x / step
    above = (x / step) % 1.0
    variance, slack = above * (1 - above), 2**-15
    assert (np.abs(error) <= 5 * np.sqrt(variance / draws) + slack).all()
    assert abs(error.mean()) <= 5 * np.sqrt(variance.sum() / draws) / x.size + slack


def test_nothing_outside_is_touched() -> None:
    for count in (1, 127, 129, 1500):
        fences = [np.full(count + 64, 3, np.float32) for _ in range(2)]
        residual, out = (fence[32:-32] for fence in fences)
        c, x = make(block=128), vector("normal", count)
        maxima = c.maxima(x, residual)
        c.dequantise(c.quantise(x, maxima, INT16, residual), maxima, out)
        for fence in fences:
            assert (fence[:32] == 3).all()
            assert (fence[-32:] == 3).all()


def test_wrong_arguments_are_refused() -> None:
    c, x = make(), vector("normal", 1500)
    maxima, q, short = c.maxima(x), np.zeros(1500, np.int8), np.zeros(3, np.float32)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("residual has 3 elements, not 1500", lambda: c.maxima(x, short)),
        ("there are 3 maxima, not 2", lambda: c.quantise(x, short, INT8)),
        ("residual has 3 elements, not 1500", lambda: c.quantise(x, maxima, INT8, short)),
        ("int8 or int16", lambda: c.quantise(x, maxima, np.dtype(np.int32))),
        ("there are 1500 integers, not 3", lambda: c.dequantise(q, maxima[:1], short)),
        ("there are 2 maxima, not 1", lambda: c.dequantise(q, maxima, short)),
        ("int8 or int16", lambda: c.dequantise(x, maxima, x)),
        ("contiguous array of float32", lambda: c.maxima(x[::2])),
    ]
    for message, call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_integers_that_no_encoder_writes_are_refused() -> None:
    c = make(4)
    payload = c.encode(vector("normal", 300))
    for wrong in (8, 127, -8, -128):
        payload[4 + 200] = np.int8(wrong).view(np.uint8)
        with pytest.raises(ValueError, match="holds an integer that no encoder writes"):
            c.decode(payload, np.empty(300, np.float32))
