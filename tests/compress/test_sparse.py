"""The sparse compressors: what is selected, what stays, and every form of the payload."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import COUNTS, FINITE, vector
from ronde import _core
from selections import decode, share

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is meant

Compressor = _core.Compressor
SIMD = _core.simd_levels()
BLOCK = 1 << 16  # of 16-bit offsets
HEADER = 8
OFFSETS, BITMAP, DENSE = range(3)

# Around the pieces in which values are looked at, and the blocks of offsets.
LONG = (16_383, 16_384, 16_385, 40_000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 33)
ratios = st.sampled_from([1e-9, 0.001, 0.01, 0.03, 0.1, 0.5, 0.97, 1.0])
kinds = st.sampled_from([*FINITE, "any"])
counts = st.one_of(st.sampled_from(COUNTS), st.sampled_from(LONG), st.integers(0, 5000))
seeds = st.integers(0, 2**20)


MAKERS: dict[str, Callable[..., Any]] = {
    "topk": lambda ratio, **simd: Compressor.topk(ratio, **simd),
    "block_topk": lambda ratio, **simd: Compressor.block_topk(ratio, 64, **simd),
    "threshold": lambda ratio, **simd: Compressor.threshold(1 / ratio, **simd),
}
names = st.sampled_from(list(MAKERS))


def header(payload: Any) -> tuple[int, int]:
    """The form, and the number of entries."""
    form, entries = payload[:HEADER].view(np.uint32)
    return int(form), int(entries)


def lengths(entries: int, count: int) -> dict[int, int]:
    """The bytes of each form."""
    blocks = -(-count // BLOCK)
    return {
        OFFSETS: HEADER + 4 * blocks + 4 * -(-entries // 2) + 4 * entries,
        BITMAP: HEADER + 4 * -(-count // 32) + 4 * entries,
        DENSE: HEADER + 4 * count,
    }


def magnitude(x: Any) -> Any:
    """Orders NaN behind infinity."""
    return x.view(np.uint32) & 0x7FFFFFFF


def same_bits(a: Any, b: Any) -> bool:
    return bool(a.tobytes() == b.tobytes())


def largest(x: Any, k: int) -> Any:
    """The positions of the k largest; of equal ones the first; and all that is not finite."""
    order = np.argsort(~magnitude(x), kind="stable")[:k]
    return np.union1d(order, np.flatnonzero(~np.isfinite(x)))


def selected(x: Any, name: str, ratio: float) -> Any:
    """By the book."""
    if name == "topk":
        return largest(x, share(ratio, x.size))
    if name == "block_topk":
        parts = [(at, x[at : at + 64]) for at in range(0, x.size, 64)]
        positions = [at + largest(part, share(ratio, part.size)) for at, part in parts]
        return np.concatenate(positions) if positions else np.zeros(0, np.int64)
    assert name == "threshold"
    return np.flatnonzero(~(np.abs(x) < np.float32(1 / ratio)))


# ---------------------------------------------------------------------------- what is selected


@settings(deadline=None)
@given(
    st.sampled_from(["topk", "block_topk", "threshold"]),
    kinds,
    counts,
    ratios,
    seeds,
    st.booleans(),
    st.sampled_from(SIMD),
)
def test_what_is_sent_is_what_the_book_says(
    name: str, kind: str, count: int, ratio: float, seed: int, feedback: bool, simd: str
) -> None:
    compressor = MAKERS[name](ratio, simd=simd)
    x = vector(kind, count, seed)
    residual = vector("uniform", count, seed + 1) if feedback else None
    total = x + residual if residual is not None else x.copy()
    before = x.copy()
    payload = compressor.encode(x, residual)
    assert same_bits(x, before)

    positions = selected(total, name, ratio)
    wanted = np.zeros(count, np.float32)
    wanted[positions] = total[positions]
    sent = decode(compressor, payload, count)
    nan = np.isnan(wanted)
    assert np.array_equal(np.isnan(sent), nan)
    assert same_bits(sent[~nan], wanted[~nan])
    if residual is not None:
        total[positions] = 0
        assert same_bits(residual, total)

    form, entries = header(payload)
    assert entries == (count if form == DENSE else len(positions))
    assert payload.size == min(lengths(len(positions), count).values())
    assert payload.size == lengths(len(positions), count)[form]


@settings(deadline=None)
@given(st.integers(1, 40), st.sampled_from([0, 1, 2, 100]), st.integers(1, 60_000), ratios, seeds)
def test_exactly_k_where_many_are_equal(
    levels: int, rare: int, count: int, ratio: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, levels, count).astype(np.float32) * random.choice([-1, 1], count)
    x = x.astype(np.float32)
    x[random.integers(0, count, rare)] = 1000
    compressor = Compressor.topk(ratio)
    positions = largest(x, share(ratio, count))
    assert len(positions) == share(ratio, count)
    residual = np.zeros(count, np.float32)
    sent = decode(compressor, compressor.encode(x, residual), count)
    assert np.array_equal(np.flatnonzero(sent), np.intersect1d(positions, np.flatnonzero(x)))
    assert np.array_equal(sent + residual, x)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_equal_values_stay_where_larger_ones_come_late(level: float) -> None:
    count, ratio, late = 8 * 16_384, 0.01, 50
    x = np.full(count, level, np.float32)
    x[-late:] = 2
    payload = Compressor.topk(ratio).encode(x)
    assert header(payload)[1] == share(ratio, count)
    sent = decode(Compressor.topk(ratio), payload, count)
    assert np.count_nonzero(sent == 2) == late
    if level:
        assert (sent[: share(ratio, count) - late] == level).all()


def sampled(count: int) -> Any:
    """The positions that top-k looks at first: one of each part, drawn by SplitMix64."""
    parts = min(1 << 14, count // 64)
    ends = np.arange(parts + 1, dtype=np.uint64) * np.uint64(count) // np.uint64(parts)
    x = np.arange(1, parts + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    draw = (x ^ (x >> np.uint64(31))) >> np.uint64(32)
    return ends[:-1] + (draw * np.diff(ends) >> np.uint64(32))


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("ratio", [1e-9, 0.001, 0.03, 0.1])
@pytest.mark.parametrize(
    "order", ["rising", "falling", "rare", "seen large", "seen small", "not finite"]
)
def test_no_order_of_the_values_misleads(order: str, ratio: float, feedback: bool) -> None:
    """What a sample sees is not what there is, and what comes first not what comes later."""
    count = 16 * 16_384 + 5
    x = vector("normal", count)
    if order in ("rising", "falling"):
        x = x[np.argsort(magnitude(x))][:: 1 if order == "rising" else -1].copy()
    elif order == "rare":
        x[np.arange(count) % 1000 < 999] = 0
    elif order == "not finite":
        x[::3] = np.nan
        x[1::3] = -np.inf
    else:
        x[sampled(count)] *= 1000 if order == "seen large" else 0
    residual = vector("uniform", count) / 100 if feedback else None
    total = x + residual if residual is not None else x.copy()
    positions = largest(total, share(ratio, count))
    wanted = np.zeros_like(x)
    wanted[positions] = total[positions]
    sent = decode(c := Compressor.topk(ratio), c.encode(x, residual), count)
    assert np.array_equal(sent, wanted, equal_nan=True)
    if residual is not None:
        total[positions] = 0
        assert same_bits(residual, total)


@settings(deadline=None)
@given(names, kinds, st.integers(0, 3 * BLOCK), ratios, seeds)
def test_spans_of_a_fitted_vector_are_that_vector(
    name: str, kind: str, count: int, ratio: float, seed: int
) -> None:
    """However it is cut, what is sent together is what the whole sends."""
    compressor = MAKERS[name](ratio)
    random = np.random.default_rng(seed)
    x, residual = vector(kind, count, seed), vector("uniform", count, seed + 1)
    whole, left = residual.copy(), residual.copy()
    wanted = decode(compressor, compressor.encode(x, whole), count)
    fitted = compressor.for_vector(x, left)
    sent = np.empty(count, np.float32)
    grains = -(-count // compressor.grain)
    cuts = sorted(
        {
            0,
            count,
            *(min(count, compressor.grain * int(g)) for g in random.integers(0, grains + 1, 3)),
        }
    )
    for begin, end in random.permutation(list(pairwise(cuts))):  # in any order
        payload = fitted.encode(x[begin:end], left[begin:end], first=begin)
        assert payload.size <= fitted.capacity(end - begin)
        compressor.decode(payload, sent[begin:end])
    assert same_bits(sent[~np.isnan(sent)], wanted[~np.isnan(wanted)])
    assert same_bits(left, whole)


# ---------------------------------------------------------------------------- laws


@settings(deadline=None)
@given(names, st.sampled_from(FINITE), counts, ratios, seeds)
def test_sent_and_residual_are_the_input_and_disjoint(
    name: str, kind: str, count: int, ratio: float, seed: int
) -> None:
    compressor = MAKERS[name](ratio)
    x, residual = vector(kind, count, seed), vector("normal", count, seed + 1)
    total = x + residual
    payload = compressor.encode(x, residual)
    sent = decode(compressor, payload, count)
    assert np.array_equal(sent + residual, total, equal_nan=True)
    assert not ((sent != 0) & (residual != 0)).any()
    assert payload.size <= compressor.capacity_of_whole(count) <= compressor.capacity(count)


@settings(deadline=None)
@given(names, kinds, counts, ratios, seeds)
def test_all_instruction_sets_give_the_same_bits(
    name: str, kind: str, count: int, ratio: float, seed: int
) -> None:
    x, before = vector(kind, count, seed), vector("normal", count, seed + 1)
    results = []
    for simd in SIMD:
        compressor, residual = MAKERS[name](ratio, simd=simd), before.copy()
        results.append((compressor.encode(x, residual).tobytes(), residual.tobytes()))
    assert len(set(results)) == 1


@settings(deadline=None)
@given(names, kinds, counts, ratios, seeds)
def test_adding_is_decoding_and_adding(
    name: str, kind: str, count: int, ratio: float, seed: int
) -> None:
    compressor, before = MAKERS[name](ratio), vector("normal", count, seed)
    payload = compressor.encode(vector(kind, count, seed))
    added = before.copy()
    compressor.decode(payload, added, add=True)
    assert np.array_equal(added, before + decode(compressor, payload, count), equal_nan=True)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", MAKERS)
def test_nan_and_infinity_are_sent_however_many(name: str, bad: float) -> None:
    compressor, count = MAKERS[name](0.01), 20_000
    for positions in ([7], [0, 63, 64, 19_999], slice(None), slice(None, None, 3)):
        x, residual = vector("normal", count), vector("normal", count, 1)
        x[positions] = bad
        sent = decode(compressor, compressor.encode(x, residual), count)
        assert not np.isfinite(sent[positions]).any()
        assert np.isfinite(residual).all()
        assert (residual[positions] == 0).all()


def test_all_forms_are_used() -> None:
    x = vector("normal", 3000)
    forms = [header(Compressor.topk(r).encode(x))[0] for r in (0.001, 0.03, 0.2, 0.9, 0.98, 1.0)]
    assert forms == [OFFSETS, OFFSETS, BITMAP, BITMAP, DENSE, DENSE]


# ---------------------------------------------------------------------------- what is refused


def payload_of(form: int, count: int) -> Any:
    """A payload of this form, of so many values."""
    ratio = {OFFSETS: 0.01, BITMAP: 0.3, DENSE: 1.0}[form]
    payload = Compressor.topk(ratio).encode(vector("normal", count))
    assert header(payload)[0] == form
    return payload


def refused(payload: Any, count: int, message: str) -> None:
    for add in (False, True):
        fence = np.full(count + 64, 3, np.float32)
        with pytest.raises(ValueError, match=message):
            Compressor.topk(0.01).decode(payload, fence[32:-32], add=add)
        assert (fence[:32] == 3).all() and (fence[-32:] == 3).all()


@pytest.mark.parametrize("form", [OFFSETS, BITMAP, DENSE])
def test_payloads_of_another_length_are_refused(form: int) -> None:
    count = 70_001
    payload = payload_of(form, count)
    for length in (0, 1, 7):
        refused(payload[:length], count, "shorter than its header")
    for bad in (payload[:8], payload[:-1], payload[:-4], np.append(payload, payload[:4])):
        refused(bad, count, "bytes, not the")


@pytest.mark.parametrize("form", [OFFSETS, BITMAP, DENSE])
def test_headers_that_lie_are_refused(form: int) -> None:
    count = 70_001
    payload = payload_of(form, count)
    words = payload[:8].view(np.uint32)
    entries = int(words[1])
    for lie in (entries - 1, entries + 1, 0, 2**31, 2**32 - 1):
        words[1] = lie
        refused(payload, count, "entries for|bytes, not the")
    words[1] = entries
    for lie in (3, 2**31, 2**32 - 1):
        words[0] = lie
        refused(payload, count, "form that no encoder writes")


def test_offsets_that_lie_are_refused() -> None:
    count = BLOCK + 1000
    x = np.zeros(count, np.float32)
    x[[3, 5, 9, BLOCK, BLOCK + 999]] = 1
    good = Compressor.threshold(1.0).encode(x)
    assert header(good) == (OFFSETS, 5)
    assert list(good[8:16].view(np.uint32)) == [3, 2]
    assert list(good[16:28].view(np.uint16)) == [3, 5, 9, 0, 999, 0]

    def changed(at: int, *values: int, kind: Any = np.uint16) -> Any:
        bad = good.copy()
        raw = np.array(values, kind).view(np.uint8)
        bad[at : at + raw.size] = raw
        return bad

    refused(changed(16, 5), count, "out of order")
    refused(changed(16, 6), count, "out of order")
    refused(changed(24, 1000), count, "or outside")
    refused(changed(26, 1), count, "not filled up with 0")
    refused(changed(8, 3, 1, kind=np.uint32), count, "counts fewer")
    refused(changed(8, 3, 3, kind=np.uint32), count, "counts more")
    refused(changed(8, 2**32 - 1, 6, kind=np.uint32), count, "counts more")


def test_bitmaps_that_lie_are_refused() -> None:
    count = 1001
    payload = payload_of(BITMAP, count)
    bad = payload.copy()
    bad[8 + 125] |= 2  # bit 1001
    refused(bad, count, "marks values beyond the end")
    for change, message in ((0, "marks fewer"), (0xFF, "marks more")):
        bad = payload.copy()
        bad[8:40] = change
        refused(bad, count, message)


@settings(deadline=None)
@given(st.sampled_from([OFFSETS, BITMAP, DENSE]), seeds)
def test_flipped_bits_are_an_error_or_decoded_to_something(form: int, seed: int) -> None:
    count, random = 3001, np.random.default_rng(seed)
    payload = payload_of(form, count)
    payload[random.integers(len(payload))] ^= 1 << random.integers(8)
    fence = np.full(count + 64, 3, np.float32)
    try:
        Compressor.topk(0.01).decode(payload, fence[32:-32])
    except ValueError as error:
        assert "payload" in str(error)
    assert (fence[:32] == 3).all() and (fence[-32:] == 3).all()


def test_wrong_parameters_are_refused() -> None:
    for ratio in (0.0, -0.1, 1.5, math.nan, math.inf):
        for make in (Compressor.topk, Compressor.block_topk):
            with pytest.raises(ValueError, match="ratio must be above 0 and at most 1"):
                make(ratio)
    for block in (0, 1, 33, 1 << 17):
        with pytest.raises(ValueError, match="multiple of 32"):
            Compressor.block_topk(0.1, block)
    for value in (0.0, -1.0, math.nan, math.inf, 1e-60):
        with pytest.raises(ValueError, match="positive and finite"):
            Compressor.threshold(value)
    with pytest.raises(ValueError, match="the residual has 3 elements, not 4"):
        Compressor.topk(0.1).for_vector(np.ones(4, np.float32), np.ones(3, np.float32))


def test_no_values_are_a_header() -> None:
    for make in MAKERS.values():
        compressor = make(0.5)
        payload = compressor.encode(np.zeros(0, np.float32))
        assert payload.size == HEADER == compressor.capacity_of_whole(0)
        assert decode(compressor, payload, 0).size == 0


def test_sparse_compressors_are_not_right_on_average() -> None:
    assert not any(make(0.5).unbiased for make in MAKERS.values())
