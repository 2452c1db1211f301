"""The kernels against NumPy, and all instruction sets against each other, bit for bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ronde import _core

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and infinity are meant

DType, ReduceOp = _core.DType, _core.ReduceOp
SIMD = _core.simd_levels()
COUNTS = (0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1000)


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if dtype is DType.bfloat16 else dtype.name)


INTEGERS = [d for d in DType.__members__.values() if numpy_dtype(d).kind in "iu"]
FLOATS = [DType.float16, DType.bfloat16, DType.float32, DType.float64]


def reduce(op: ReduceOp, dtype: DType, a: Any, b: Any, simd: str) -> Any:
    out = np.empty_like(a)
    _core.reduce_many(op, dtype, [out], [a, b], simd=simd)
    return out


def any_bits(dtype: DType, count: int, seed: int) -> Any:
    """Random bytes: for floats also NaN, infinities and subnormals."""
    generator = np.random.default_rng(seed)
    if dtype is DType.bool:
        return generator.integers(0, 2, count).astype(bool)
    width = numpy_dtype(dtype).itemsize
    return np.frombuffer(generator.bytes(count * width), numpy_dtype(dtype))


def special_values(dtype: DType) -> Any:
    tiny = np.array(
        [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-7, 3e38, 65519, 65520]
    )
    with np.errstate(over="ignore"):
        values = tiny.astype(numpy_dtype(dtype))
    return np.repeat(values, len(values)), np.tile(values, len(values))


@pytest.mark.parametrize("dtype", list(DType.__members__.values()), ids=lambda d: d.name)
@pytest.mark.parametrize("op", list(ReduceOp.__members__.values()), ids=lambda op: op.name)
def test_all_instruction_sets_give_the_same_bits(op: ReduceOp, dtype: DType) -> None:
    for count in COUNTS:
        a, b = any_bits(dtype, count, 1), any_bits(dtype, count, 2)
        results = [reduce(op, dtype, a, b, simd) for simd in SIMD]
        for other in results[1:]:
            if op in (ReduceOp.min, ReduceOp.max) or dtype not in FLOATS:
                assert other.tobytes() == results[0].tobytes()
            else:  # which of two NaN survives a sum is the processor's choice
                nan = np.isnan(results[0])
                assert (np.isnan(other) == nan).all()
                assert other[~nan].tobytes() == results[0][~nan].tobytes()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_integers_wrap_as_in_numpy(dtype: DType, simd: str) -> None:
    for count in COUNTS:
        a, b = any_bits(dtype, count, 3), any_bits(dtype, count, 4)
        for op, ufunc in (
            (ReduceOp.sum, np.add),
            (ReduceOp.product, np.multiply),
            (ReduceOp.min, np.minimum),
            (ReduceOp.max, np.maximum),
        ):
            assert (reduce(op, dtype, a, b, simd) == ufunc(a, b)).all()


@pytest.mark.parametrize("simd", SIMD)
def test_bool_is_or_for_sum_and_max_and_and_for_product_and_min(simd: str) -> None:
    a = np.array([False, False, True, True] * 9)
    b = np.array([False, True, False, True] * 9)
    for op in (ReduceOp.sum, ReduceOp.max):
        assert (reduce(op, DType.bool, a, b, simd) == (a | b)).all()
    for op in (ReduceOp.product, ReduceOp.min):
        assert (reduce(op, DType.bool, a, b, simd) == (a & b)).all()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_sums_and_products_are_rounded_once(dtype: DType, simd: str) -> None:
    pairs = [(any_bits(dtype, 1000, 5), any_bits(dtype, 1000, 6)), special_values(dtype)]
    wide = {2: np.float32, 4: np.float64, 8: np.longdouble}[numpy_dtype(dtype).itemsize]
    for a, b in pairs:
        for op, ufunc in ((ReduceOp.sum, np.add), (ReduceOp.product, np.multiply)):
            with np.errstate(all="ignore"):
                exact = ufunc(a, b) if dtype in (DType.float32, DType.float64) else (
                    ufunc(a.astype(wide), b.astype(wide)).astype(a.dtype)
                )  # fmt: skip
            result = reduce(op, dtype, a, b, simd)
            nan = np.isnan(exact)
            assert (np.isnan(result) == nan).all()
            assert result[~nan].tobytes() == exact[~nan].tobytes()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("op", [ReduceOp.min, ReduceOp.max], ids=lambda op: op.name)
def test_min_and_max_do_not_depend_on_the_order_of_the_operands(
    op: ReduceOp, dtype: DType, simd: str
) -> None:
    for a, b in [special_values(dtype), (any_bits(dtype, 999, 7), any_bits(dtype, 999, 8))]:
        one, other = reduce(op, dtype, a, b, simd), reduce(op, dtype, b, a, simd)
        assert one.tobytes() == other.tobytes()
        nan = np.isnan(a) | np.isnan(b)
        assert (np.isnan(one) == nan).all()
        assert len({x.tobytes() for x in one[nan]}) <= 1, "more than one kind of NaN"
        choose = np.minimum if op is ReduceOp.min else np.maximum
        assert (one[~nan] == choose(a, b)[~nan]).all()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_minus_zero_is_less_than_plus_zero(dtype: DType, simd: str) -> None:
    plus, minus = (np.full(40, zero, numpy_dtype(dtype)) for zero in (0.0, -0.0))
    for a, b in ((plus, minus), (minus, plus)):
        assert np.signbit(reduce(ReduceOp.min, dtype, a, b, simd)).all()
        assert not np.signbit(reduce(ReduceOp.max, dtype, a, b, simd)).any()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", [DType.float16, DType.bfloat16], ids=lambda d: d.name)
def test_every_half_number_keeps_its_value(dtype: DType, simd: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bits.view(numpy_dtype(dtype))
    one = np.ones_like(values)
    result = reduce(ReduceOp.product, dtype, values, one, simd)
    nan = np.isnan(values)
    assert (result.view(np.uint16)[~nan] == bits[~nan]).all()
    assert np.isnan(result[nan]).all()


@settings(max_examples=200, deadline=None)
@given(
    x=st.floats(width=32, allow_nan=False),
    y=st.floats(width=32, allow_nan=False),
    dtype=st.sampled_from([DType.float16, DType.bfloat16]),
    simd=st.sampled_from(SIMD),
)
def test_half_sums_round_like_numpy(x: float, y: float, dtype: DType, simd: str) -> None:
    with np.errstate(all="ignore"):
        a = np.full(9, x, np.float32).astype(numpy_dtype(dtype))
        b = np.full(9, y, np.float32).astype(numpy_dtype(dtype))
        expected = (a.astype(np.float32) + b.astype(np.float32)).astype(a.dtype)
    result = reduce(ReduceOp.sum, dtype, a, b, simd)
    assert np.array_equal(result, expected, equal_nan=True)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("factor", [0.5, 1 / 3, -7.25, 0.0])
def test_scaling_rounds_once(dtype: DType, simd: str, factor: float) -> None:
    for count in COUNTS:
        values = np.random.default_rng(9).normal(size=count).astype(numpy_dtype(dtype))
        work = values.copy()
        _core.reduce_many(ReduceOp.sum, dtype, [work], [work], prescale=factor, simd=simd)
        wide = np.float64 if dtype is DType.float64 else np.float32
        expected = (values.astype(wide) * wide(factor)).astype(values.dtype)
        assert work.tobytes() == expected.tobytes()
        if factor:
            work = values.copy()
            _core.reduce_many(ReduceOp.sum, dtype, [work], [work], divisor=factor, simd=simd)
            expected = (values.astype(wide) / wide(factor)).astype(values.dtype)
            assert work.tobytes() == expected.tobytes()


@pytest.mark.parametrize("simd", SIMD)
def test_any_byte_but_zero_is_true(simd: str) -> None:
    a = np.array([0, 0, 1, 2, 255, 4] * 7, np.uint8)
    b = np.array([0, 3, 0, 1, 2, 255] * 7, np.uint8)
    out = np.empty_like(a)
    _core.reduce_many(ReduceOp.sum, DType.bool, [out], [a, b], simd=simd)
    assert (out == ((a != 0) | (b != 0))).all()
    _core.reduce_many(ReduceOp.min, DType.bool, [out], [a, b], simd=simd)
    assert (out == ((a != 0) & (b != 0))).all()


@pytest.mark.parametrize("where", ["left", "right"])
def test_the_result_may_take_the_place_of_an_operand(where: str) -> None:
    for dtype in DType.__members__.values():
        a, b = any_bits(dtype, 100, 11).copy(), any_bits(dtype, 100, 12).copy()
        expected = reduce(ReduceOp.max, dtype, a, b, "")
        out = a if where == "left" else b
        _core.reduce_many(ReduceOp.max, dtype, [out], [a, b])
        assert out.tobytes() == expected.tobytes()


def test_what_does_not_fit_is_refused() -> None:
    a = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="differ in size"):
        _core.reduce_many(ReduceOp.sum, DType.float32, [np.zeros(3, np.float32)], [a, a])
    with pytest.raises(ValueError, match="differ in size"):
        _core.copy_bytes(np.zeros(3, np.float32), a)
    with pytest.raises(ValueError, match="no arrays"):
        _core.reduce_many(ReduceOp.sum, DType.float32, [a], [])
    with pytest.raises(ValueError, match="no kernels for the instruction set 'abacus'"):
        _core.reduce_many(ReduceOp.sum, DType.float32, [a], [a], simd="abacus")
    with pytest.raises(ValueError, match="only floating types"):
        _core.reduce_many(ReduceOp.sum, DType.int32, [a], [a], divisor=2.0)
