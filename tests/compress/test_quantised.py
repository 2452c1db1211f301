"""The quantised compressors: laws for every input, and the reference bit for bit."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import COUNTS, FINITE, vector
from reference import group_of, integers, levels_of, pack, philox, random_numbers, step_of
from ronde import _core

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is meant

Compressor, Norm, Rounding = _core.Compressor, _core.Norm, _core.Rounding
SIMD = _core.simd_levels()


class Quantiser(NamedTuple):
    bits: int
    block: int
    norm: str
    rounding: str = "nearest"

    def make(self, simd: str = "") -> Any:
        norm, rounding = Norm.__members__[self.norm], Rounding.__members__[self.rounding]
        return Compressor.linear(self.bits, self.block, norm, rounding, simd=simd)

    def __str__(self) -> str:
        return f"{self.bits}-bits-of-{self.block}-{self.norm}-{self.rounding}"


class Shared(NamedTuple):
    """The payloads, each with scales of its own, of what is added with shared ones (test_shared_scale.py)."""

    bits: int
    block: int
    rounding: str = "nearest"
    norm = "max"

    def make(self, simd: str = "") -> Any:
        rounding = Rounding.__members__[self.rounding]
        return Compressor.shared_scale(self.bits, self.block, rounding, simd=simd)

    def __str__(self) -> str:
        return f"shared-{self.bits}-bits-of-{self.block}-{self.rounding}"


PRESETS = {
    "int8": Quantiser(8, 1024, "max"),
    "int4": Quantiser(4, 256, "max"),
    "qsgd": Quantiser(4, 512, "l2", "stochastic"),
    "ternary": Quantiser(2, 1024, "max", "stochastic"),
    "sign": Quantiser(1, 1024, "mean"),
}
QUANTISERS = [
    *PRESETS.values(),
    *(Quantiser(bits, group_of(bits), "max") for bits in range(1, 9)),
    *(Quantiser(bits, 1024, norm, "stochastic") for bits in (1, 3, 8) for norm in ("max", "l2")),
    *(Quantiser(bits, 512, norm) for bits in (1, 3, 5) for norm in ("mean", "l2")),
    Quantiser(7, 4096, "mean", "stochastic"),
]
What = str | Quantiser | Shared
CASTS = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}
NAMES = [*PRESETS, "fp8", *CASTS]
SHARED = [Shared(4, 1024), Shared(2, 128), Shared(8, 4096, "stochastic")]
EVERY = [*NAMES, *QUANTISERS, *SHARED]
BLOCKED = [each for each in EVERY if each not in CASTS]  # with a scale for each block

kinds = st.sampled_from([*FINITE, "any"])
finite_kinds = st.sampled_from(FINITE)
counts = st.one_of(st.sampled_from(COUNTS), st.integers(0, 5000))
seeds = st.integers(0, 2**20)
every = st.sampled_from(EVERY)


def make(what: What, simd: str = "") -> Any:
    return Compressor(what, simd=simd) if isinstance(what, str) else what.make(simd)


def decode(compressor: Any, payload: Any, count: int) -> Any:
    out = np.full(count, 7, np.float32)
    compressor.decode(payload, out)
    return out


def same_bits(a: Any, b: Any) -> bool:
    return bool(a.tobytes() == b.tobytes())


# ---------------------------------------------------------------------------- every compressor


def test_the_presets_are_what_they_are_called() -> None:
    assert set(_core.compressor_names()) >= set(NAMES)
    x = vector("normal", 3000)
    for name, quantiser in PRESETS.items():
        payloads = [c.encode(x, key=3) for c in (Compressor(name), quantiser.make())]
        assert same_bits(*payloads), name


@given(every, kinds, counts, seeds, st.booleans())
def test_all_instruction_sets_give_the_same_bits(
    what: What, kind: str, count: int, seed: int, feedback: bool
) -> None:
    x, before = vector(kind, count, seed), vector("normal", count, seed + 1)
    results = []
    for simd in SIMD:
        compressor, residual = make(what, simd), before.copy() if feedback else None
        payload = compressor.encode(x, residual, key=seed, first=4096 * seed)
        added = before.copy()
        compressor.decode(payload, added, add=True)
        results.append((payload, decode(compressor, payload, count), added, residual))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            assert (mine is None and theirs is None) or same_bits(mine, theirs)


@given(every, counts)
def test_payloads_have_the_promised_length(what: What, count: int) -> None:
    compressor = make(what)
    payload = compressor.encode(vector("normal", count))
    assert len(payload) == compressor.capacity(count)
    if isinstance(what, Quantiser):
        group = group_of(what.bits)
        codes = -(-count // group) * group * what.bits // 8
        assert len(payload) == codes + 4 * -(-count // what.block)
    elif isinstance(what, Shared):
        assert len(payload) == count + 4 * -(-count // what.block)
    elif what in CASTS:
        assert len(payload) == 2 * count


@settings(deadline=None)
@given(every, finite_kinds, counts, seeds)
def test_what_is_sent_and_the_residual_are_the_input(
    what: What, kind: str, count: int, seed: int
) -> None:
    """Exactly, or within one rounding where the rounding is not to the nearest."""
    compressor = make(what)
    x, residual = vector(kind, count, seed), 0.01 * vector(kind, count, seed + 1)
    total = x + residual
    sent = decode(compressor, compressor.encode(x, residual, key=seed), count)
    passed_on = ~np.isfinite(sent)  # infinity of float16, or a sum that was infinite before
    assert (residual[passed_on] == 0).all()
    exact = total.astype(np.float64) - sent
    once_rounded = exact.astype(np.float32)
    assert same_bits(residual[~passed_on] + 0, once_rounded[~passed_on] + 0)
    quantiser = PRESETS.get(what) if isinstance(what, str) else what
    if quantiser is None or (
        quantiser.bits > 1 and quantiser.rounding == "nearest" and quantiser.norm != "mean"
    ):
        assert (residual[~passed_on] == exact[~passed_on]).all()


@given(every, kinds, counts, seeds)
def test_without_a_residual_the_payload_is_that_of_a_zero_residual(
    what: What, kind: str, count: int, seed: int
) -> None:
    compressor, x = make(what), vector(kind, count, seed) + np.float32(0)  # no minus zero
    zero = np.zeros(count, np.float32)
    assert same_bits(compressor.encode(x, key=1), compressor.encode(x, zero, key=1))


@given(every, finite_kinds, st.integers(1, 3), st.integers(0, 2000), seeds)
def test_spans_cut_at_the_grain_have_the_same_payload(
    what: What, kind: str, grains: int, rest: int, seed: int
) -> None:
    compressor = make(what)
    cut = grains * compressor.grain
    x, residual = vector(kind, cut + rest, seed), vector("normal", cut + rest)
    first = 2**40 * compressor.grain  # far into a long vector
    halves = residual[:cut].copy(), residual[cut:].copy()
    whole = compressor.encode(x, residual, key=seed, first=first)
    parts = [
        compressor.encode(x[:cut], halves[0], key=seed, first=first),
        compressor.encode(x[cut:], halves[1], key=seed, first=first + cut),
    ]
    assert same_bits(whole, np.concatenate(parts))
    assert same_bits(residual, np.concatenate(halves))


@given(every, kinds, counts, seeds)
def test_adding_is_decoding_and_adding(what: What, kind: str, count: int, seed: int) -> None:
    compressor, before = make(what), vector("normal", count, seed)
    payload = compressor.encode(vector(kind, count, seed))
    added = before.copy()
    compressor.decode(payload, added, add=True)
    assert np.array_equal(added, before + decode(compressor, payload, count), equal_nan=True)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("simd", SIMD)
def test_nan_and_infinity_are_never_silently_finite(simd: str, bad: float) -> None:
    for what in EVERY:
        check_that_it_is_not_finite(what, simd, bad)


def check_that_it_is_not_finite(what: What, simd: str, bad: float) -> None:
    compressor = make(what, simd)
    count, place = 3 * 4096 + 5, 2 * 4096 + 1
    x, residual = vector("normal", count), vector("normal", count, 1)
    clean_x, clean_residual = x.copy(), residual.copy()
    x[place] = bad
    sent = decode(compressor, compressor.encode(x, residual), count)
    block = slice(place, place + 1)
    if what not in CASTS:
        start = place - place % compressor.grain
        block = slice(start, start + compressor.grain)
        assert np.isnan(sent[block]).all(), what
    assert not np.isfinite(sent[place]), what
    assert (residual[block] == 0).all(), what
    clean = decode(compressor, compressor.encode(clean_x, clean_residual), count)
    for mine, theirs in ((sent, clean), (residual, clean_residual)):
        others = [np.delete(a, np.r_[block]) for a in (mine, theirs)]
        assert same_bits(*others), f"another block of {what} has changed"


def test_what_is_too_small_stays_in_the_residual() -> None:
    for compressor in map(make, BLOCKED):
        x, residual = vector("denormal", 1500), np.zeros(1500, np.float32)
        assert (decode(compressor, compressor.encode(x, residual), 1500) == 0).all()
        assert same_bits(residual, x + np.float32(0))


# ---------------------------------------------------------------------------- the linear quantiser


@settings(deadline=None)
@given(st.sampled_from(QUANTISERS), finite_kinds, counts, seeds, st.sampled_from(SIMD))
def test_payloads_are_those_of_the_reference(
    quantiser: Quantiser, kind: str, count: int, seed: int, simd: str
) -> None:
    bits, block, norm, rounding = quantiser
    x, first = vector(kind, count, seed), seed * block
    key = seed * 0x123456789AB
    compressor = quantiser.make(simd)
    payload = compressor.encode(x, key=key, first=first).tobytes()
    sent = decode(compressor, np.frombuffer(payload, np.uint8), count)
    for at in range(0, count, block):
        part = x[at : at + block]
        step = np.frombuffer(payload[:4], np.float32)[0]
        wanted = step_of(part, bits, norm)
        if wanted == 0 or norm == "max":
            assert step == np.float32(wanted)
        else:
            assert step == pytest.approx(wanted, rel=1e-5)
        full = np.pad(part, (0, -len(part) % group_of(bits)))
        random = random_numbers(len(full), key, first + at) if rounding == "stochastic" else None
        q = integers(full, step, bits, random)
        codes = pack((q < 0).astype(np.int64) if bits == 1 else q, bits)
        assert payload[4 : 4 + len(codes)] == codes
        assert (sent[at : at + block] == (q * step).astype(np.float32)[: len(part)]).all()
        payload = payload[4 + len(codes) :]
    assert not payload


@given(st.sampled_from(QUANTISERS), finite_kinds, counts, seeds)
def test_errors_are_within_the_bound(
    quantiser: Quantiser, kind: str, count: int, seed: int
) -> None:
    if quantiser.norm == "mean":
        return  # it cuts off what is large: no bound
    compressor, x = quantiser.make(), vector(kind, count, seed)
    sent = decode(compressor, compressor.encode(x, key=seed), count)
    steps = {("nearest", False): 0.5, ("stochastic", False): 1, ("nearest", True): 1}
    bound = steps.get((quantiser.rounding, quantiser.bits == 1), 2) * (1 + 2**-16)
    for at in range(0, count, quantiser.block):
        part = x[at : at + quantiser.block].astype(np.float64)
        step = step_of(part.astype(np.float32), quantiser.bits, quantiser.norm)
        if step > 0:
            assert (np.abs(part - sent[at : at + quantiser.block]) <= bound * step).all()


def test_random_numbers_are_philox() -> None:
    """The known answers that the authors of Philox published with it."""
    ones = 0xFFFFFFFF
    assert [int(w) for w in philox([0, 0, 0, 0], 0)] == [
        0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8,
    ]  # fmt: skip
    assert [int(w) for w in philox([ones] * 4, 2**64 - 1)] == [
        0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "quantiser",
    [q for q in QUANTISERS if q.rounding == "stochastic" and q.norm != "mean"],
    ids=str,
)
def test_stochastic_rounding_is_right_on_average(quantiser: Quantiser) -> None:
    """The mean of many draws lies within five standard deviations, for each element and for all."""
    compressor, draws = quantiser.make(), 4000
    assert compressor.unbiased
    x = vector("normal", quantiser.block)
    step = step_of(x, quantiser.bits, quantiser.norm)
    sums, sent = np.zeros(len(x)), np.empty_like(x)
    for key in range(draws):
        compressor.decode(compressor.encode(x, key=key), sent)
        sums += sent
    error = sums / draws - x
    if quantiser.bits == 1:
        variance = step**2 - x.astype(np.float64) ** 2
    else:
        above = (x / step) % 1.0
        variance = step**2 * above * (1 - above)
    slack = 2**-15 * step  # 16 random bits, and the rounding of the arithmetic
    assert (np.abs(error) <= 5 * np.sqrt(np.maximum(variance, 0) / draws) + slack).all()
    assert abs(error.mean()) <= 5 * np.sqrt(variance.sum() / draws) / len(x) + slack


def test_draws_depend_on_the_key_and_the_place_alone() -> None:
    compressor, x = Compressor("qsgd"), np.tile(vector("normal", 512), 2)
    payload = compressor.encode(x, key=5)
    assert same_bits(payload, compressor.encode(x, key=5))
    assert not same_bits(payload, compressor.encode(x, key=6))
    assert not same_bits(payload, compressor.encode(x, key=5 + 2**32))
    assert not same_bits(payload, compressor.encode(x, key=5, first=2**32 * 128))
    half = len(payload) // 2
    assert not same_bits(payload[:half], payload[half:])  # the same values at another place


def test_unbiased_is_what_is_unbiased() -> None:
    assert {name for name in NAMES if Compressor(name).unbiased} == {"qsgd", "ternary"}
    assert not Quantiser(8, 1024, "mean", "stochastic").make().unbiased


# ---------------------------------------------------------------------------- shorter floats


@settings(deadline=None)
@given(st.sampled_from(list(CASTS)), kinds, counts, seeds, st.sampled_from(SIMD))
def test_casts_are_those_of_numpy(name: str, kind: str, count: int, seed: int, simd: str) -> None:
    x = vector(kind, count, seed)
    compressor = Compressor(name, simd=simd)
    payload = compressor.encode(x)
    sent, wanted = payload.view(CASTS[name]), x.astype(CASTS[name])
    nan = np.isnan(x)
    assert (np.isnan(sent.astype(np.float32)) == nan).all()
    assert same_bits(sent[~nan], wanted[~nan])
    assert np.array_equal(
        decode(compressor, payload, count), wanted.astype(np.float32), equal_nan=True
    )


@settings(deadline=None)
@given(finite_kinds, counts, seeds, st.sampled_from(SIMD))
def test_fp8_is_e4m3_with_the_least_power_of_two(
    kind: str, count: int, seed: int, simd: str
) -> None:
    x, compressor = vector(kind, count, seed), Compressor("fp8", simd=simd)
    payload = compressor.encode(x)
    for block, at in zip(payload.reshape(-1, 132), range(0, count, 128), strict=True):
        part, scale = x[at : at + 128].astype(np.float64), block[:4].view(np.float32)[0]
        greatest = np.abs(part).max()
        if scale == 0:
            assert greatest < 449 * 2.0**-126
        else:
            assert np.frexp(scale)[0] == 0.5
            assert 224 * np.float64(scale) < greatest <= 448 * np.float64(scale)
        part = np.clip(part, -15 * 2.0**124, 15 * 2.0**124)  # more would become infinite
        codes = (part / scale if scale else 0 * part).astype(ml_dtypes.float8_e4m3fn)
        assert block[4:].tobytes() == pack(codes.view(np.uint8).astype(np.int64), 8)
    sent = decode(compressor, payload, count)
    assert same_bits(sent, decode(compressor, compressor.encode(sent), count))


@pytest.mark.parametrize("simd", SIMD)
def test_every_code_of_fp8_has_its_value(simd: str) -> None:
    values = np.arange(256, dtype=np.uint8)
    wanted = values.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    one = np.float32(1).tobytes()
    payload = b"".join(one + pack(half.astype(np.int64), 8) for half in values.reshape(2, 128))
    sent = decode(Compressor("fp8", simd=simd), np.frombuffer(payload, np.uint8), 256)
    assert np.array_equal(sent, wanted, equal_nan=True)


# ---------------------------------------------------------------------------- what is refused


@given(every, counts, st.sampled_from([-4, -1, 1, 64]))
def test_payloads_of_another_length_are_refused(what: What, count: int, more: int) -> None:
    compressor = make(what)
    length = compressor.capacity(count) + more
    if length >= 0:
        with pytest.raises(ValueError, match=f"has {length - more} bytes, not {length}"):
            compressor.decode(np.zeros(length, np.uint8), np.zeros(count, np.float32))


SCALES = [-1.0, -0.0, np.inf, -np.inf, -np.nan, 1e-39, np.finfo(np.float32).max]


@pytest.mark.parametrize("scale", SCALES)
def test_scales_that_no_encoder_writes_are_refused(scale: float) -> None:
    for what, simd in itertools.product(BLOCKED, SIMD):
        compressor = make(what, simd)
        count = compressor.grain + 1
        payload = compressor.encode(vector("normal", count))
        last = compressor.capacity(compressor.grain)
        payload[last : last + 4] = np.array([scale], np.float32).view(np.uint8)
        with pytest.raises(ValueError, match="scale"):
            compressor.decode(payload, np.zeros(count, np.float32))


@given(every, st.integers(1, 3000), seeds)
def test_flipped_bits_are_an_error_or_decoded_to_something(
    what: What, count: int, seed: int
) -> None:
    compressor, random = make(what), np.random.default_rng(seed)
    payload = compressor.encode(vector("normal", count))
    payload[random.integers(len(payload))] ^= 1 << random.integers(8)
    fence = np.full(count + 64, 3, np.float32)
    try:
        compressor.decode(payload, fence[32:-32])
    except ValueError as error:
        assert "that no encoder writes" in str(error)
    assert (fence[:32] == 3).all() and (fence[-32:] == 3).all()


def test_codes_that_no_encoder_writes_are_one_level_more() -> None:
    """-L-1 is a code: finite, as the largest step leaves room for it or becomes infinite."""
    for bits in range(2, 9):
        quantiser = Quantiser(bits, 1024, "max")
        payload = quantiser.make().encode(np.ones(16, np.float32))
        payload[4:] = np.frombuffer(pack(np.full(16, -(2 ** (bits - 1))), bits), np.uint8)
        step = payload[:4].view(np.float32)[0]
        assert (decode(quantiser.make(), payload, 16) == -(levels_of(bits) + 1) * step).all()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no compressor 'zip'; there are .*int8"):
        Compressor("zip")
    with pytest.raises(ValueError, match="no kernels for the instruction set 'abacus'"):
        Compressor("int8", simd="abacus")
    for bits in (0, 9, -1):
        with pytest.raises(ValueError, match="1 to 8 bits"):
            Compressor.linear(bits)
    for bits, block in ((8, 0), (8, 64), (2, 128), (3, 256), (1, 1000), (4, 8192)):
        with pytest.raises(ValueError, match="multiple of"):
            Compressor.linear(bits, block)

    compressor, x = Compressor("int8"), np.zeros(100, np.float32)
    payload = compressor.encode(x)
    with pytest.raises(ValueError, match="values must be a contiguous array of float32"):
        compressor.encode(x.astype(np.float64))
    with pytest.raises(ValueError, match="values must be a contiguous array of float32"):
        compressor.encode(x[::2])
    with pytest.raises(ValueError, match="the residual must be a contiguous array of float32"):
        compressor.encode(x, np.zeros(200, np.float32)[::2])
    with pytest.raises(ValueError, match="the residual has 99 elements, not 100"):
        compressor.encode(x, x[:99].copy())
    with pytest.raises(ValueError, match="multiple of the grain, 1024, not at 512"):
        compressor.encode(x, first=512)
    with pytest.raises(ValueError, match="a payload is a contiguous array of uint8"):
        compressor.decode(payload.view(np.int8), x)
    with pytest.raises(ValueError, match="out must be a contiguous array of float32"):
        compressor.decode(payload, x.astype(np.float16))
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read only"):
        compressor.decode(payload, x)
    with pytest.raises(ValueError, match="read only"):
        compressor.encode(np.zeros(100, np.float32), x)
