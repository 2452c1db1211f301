"""Random entries: one of each part, at positions that only the key decides, in payloads that add up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import COUNTS, FINITE, vector
from ronde import _core
from selections import decode, share

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is meant

random_k = _core.Compressor.randomk
HEAD = 8  # the key
# Around the pieces in which values are looked at.
LONG = (16_383, 16_384, 16_385, 40_000)
ratios = st.sampled_from([1e-9, 0.001, 0.01, 0.03, 0.1, 0.5, 0.97, 1.0])
counts = st.one_of(st.sampled_from(COUNTS), st.sampled_from(LONG), st.integers(0, 5000))
seeds = st.integers(0, 2**20)


def positions(compressor: Any, count: int, key: int) -> Any:
    ones = np.ones(count, np.float32)
    return np.flatnonzero(decode(compressor, compressor.encode(ones, key=key), count))


def parts(ratio: float, count: int) -> Any:
    """The part of each position: as even as possible."""
    k = share(ratio, count)
    return ((np.arange(count) + 1) * k - 1) // max(count, 1)


@settings(deadline=None)
@given(counts, ratios, seeds)
def test_one_of_each_part_is_drawn(count: int, ratio: float, key: int) -> None:
    drawn = positions(random_k(ratio), count, key)
    assert np.array_equal(parts(ratio, count)[drawn], np.arange(share(ratio, count)))


def test_all_places_are_reached_alike() -> None:
    compressor, count, keys = random_k(0.1), 1000, 2000
    hits = np.zeros(count)
    for key in range(keys):
        hits[positions(compressor, count, key)] += 1
    expected, spread = keys / 10, math.sqrt(keys * 0.1 * 0.9)
    assert (np.abs(hits - expected) < 5.5 * spread).all()


@settings(deadline=None)
@given(st.sampled_from(FINITE), counts, ratios, seeds, st.booleans())
def test_what_is_drawn_is_sent_and_the_rest_stays(
    kind: str, count: int, ratio: float, seed: int, feedback: bool
) -> None:
    compressor, x = random_k(ratio), vector(kind, count, seed)
    residual = vector("normal", count, seed + 1) if feedback else None
    total, before = x + residual if residual is not None else x, x.copy()
    payload = compressor.encode(x, residual, key=seed)
    assert x.tobytes() == before.tobytes()
    assert payload.size == HEAD + 4 * share(ratio, count)
    assert payload.size == compressor.capacity(count) == compressor.capacity_of_whole(count)

    drawn = positions(compressor, count, seed)
    sent = decode(compressor, payload, count)
    # What was too large is passed on, to its whole part.
    finite = np.isin(parts(ratio, count), parts(ratio, count)[~np.isfinite(total)], invert=True)
    wanted = np.zeros_like(x)
    wanted[drawn] = total[drawn]
    assert np.array_equal(sent[finite], wanted[finite])
    assert np.isnan(sent[~finite]).all()
    if residual is not None:
        assert np.array_equal((sent + residual)[finite], total[finite])
        assert not residual[drawn].any()


@settings(deadline=None)
@given(st.sampled_from([*FINITE, "any"]), counts, ratios, seeds)
def test_all_instruction_sets_give_the_same_bits(
    kind: str, count: int, ratio: float, seed: int
) -> None:
    x, before = vector(kind, count, seed), vector("normal", count, seed + 1)
    results = []
    for simd in _core.simd_levels():
        compressor, residual = random_k(ratio, simd=simd), before.copy()
        results.append((compressor.encode(x, residual, key=seed).tobytes(), residual.tobytes()))
    assert len(set(results)) == 1


@settings(deadline=None)
@given(st.sampled_from([*FINITE, "any"]), counts, ratios, seeds)
def test_adding_is_decoding_and_adding(kind: str, count: int, ratio: float, seed: int) -> None:
    compressor, before = random_k(ratio), vector("normal", count, seed)
    payload = compressor.encode(vector(kind, count, seed), key=seed)
    added = before.copy()
    compressor.decode(payload, added, add=True)
    assert np.array_equal(added, before + decode(compressor, payload, count), equal_nan=True)


@settings(deadline=None)
@given(st.sampled_from([*FINITE, "any"]), counts, ratios, seeds)
def test_the_payload_of_a_sum_is_the_sum_of_the_payloads(
    kind: str, count: int, ratio: float, seed: int
) -> None:
    """Behind the head, which is that of the key."""
    compressor = random_k(ratio)
    assert compressor.adds_up
    a, b = (
        compressor.encode(x, key=seed) for x in (vector(kind, count, seed), vector("huge", count))
    )
    assert (a[:HEAD] == b[:HEAD]).all()
    both = a.copy()
    both[HEAD:].view(np.float32)[...] += b[HEAD:].view(np.float32)
    sent = decode(compressor, both, count)
    wanted = decode(compressor, a, count) + decode(compressor, b, count)
    finite = np.isfinite(wanted)
    assert np.array_equal(sent[finite & np.isfinite(sent)], wanted[finite & np.isfinite(sent)])
    assert not np.isfinite(sent[~finite]).any()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("feedback", [False, True])
def test_nan_and_infinity_come_out_in_their_whole_part(bad: float, feedback: bool) -> None:
    compressor, count, key = random_k(0.01), 20_000, 5
    drawn, part = positions(compressor, count, key), parts(0.01, count)
    for spoilt in (
        drawn[7:8],
        drawn[7:8] + 1,
        [0, 99, 100, 19_999],
        slice(None),
        slice(0, None, 3),
    ):
        x = vector("normal", count)
        residual = vector("normal", count, 1) if feedback else None
        x[spoilt] = bad
        sent = decode(compressor, compressor.encode(x, residual, key=key), count)
        assert np.array_equal(np.isnan(sent), np.isin(part, part[spoilt]))
        assert not np.isinf(sent).any()
        if residual is not None:
            assert np.isfinite(residual).all()
            assert (residual[spoilt] == 0).all()


def test_payloads_of_another_length_are_refused() -> None:
    compressor, count = random_k(0.1), 1001
    payload = compressor.encode(vector("normal", count))
    for bad in (payload[:0], payload[:7], payload[:8], payload[:-1], np.append(payload, payload)):
        fence = np.full(count + 64, 3, np.float32)
        with pytest.raises(ValueError, match=r"payload of random-k has .* bytes, not the 408"):
            compressor.decode(bad, fence[32:-32])
        assert (fence == 3).all()


@settings(deadline=None)
@given(seeds)
def test_flipped_bits_are_decoded_to_something(seed: int) -> None:
    count, random = 3001, np.random.default_rng(seed)
    payload = random_k(0.1).encode(vector("normal", count), key=seed)
    payload[random.integers(len(payload))] ^= 1 << random.integers(8)
    fence = np.full(count + 64, 3, np.float32)
    random_k(0.1).decode(payload, fence[32:-32])
    assert (fence[:32] == 3).all() and (fence[-32:] == 3).all()


def test_wrong_ratios_are_refused() -> None:
    for ratio in (0.0, -0.1, 1.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="ratio must be above 0 and at most 1"):
            random_k(ratio)


def test_it_is_not_right_on_average() -> None:
    assert not random_k(0.5).unbiased
