"""The kernels against NumPy, and all instruction sets against each other, bit for bit."""

from __future__ import annotations

import itertools
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


def reference(op: ReduceOp, dtype: DType, ins: list[Any], scaling: dict[str, float]) -> Any:
    """ins[0] op ins[1] op ... in order, computed as documented: half types in float32."""
    result_type = numpy_dtype(dtype)
    if dtype is DType.bool:
        either = op in (ReduceOp.sum, ReduceOp.max)
        return (np.logical_or if either else np.logical_and).reduce(ins)
    wide = np.float32 if dtype in (DType.float16, DType.bfloat16) else result_type.type
    ufunc = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum}[op.name]
    before, divisor, after = (scaling.get(name, 1) for name in ("prescale", "divisor", "postscale"))
    if wide is not result_type.type and op is ReduceOp.sum and divisor != 1:
        before, after = 1, before * after
    values = [x.astype(wide) * wide(before) for x in ins]
    result = values[0]
    for value in values[1:]:
        result = ufunc(result, value)
    if scaling:
        result = result / wide(divisor) * wide(after)
    return result.astype(result_type)


def numbers(dtype: DType, count: int, how_many: int) -> list[Any]:
    """Ordinary numbers, the first of them not at the start of a cache line."""
    generator = np.random.default_rng(count)
    arrays = []
    for i in range(how_many):
        if dtype is DType.bool:
            values = generator.integers(0, 2, count + i)
        elif dtype in INTEGERS:
            values = generator.integers(0, 100, count + i)
        else:
            values = generator.normal(size=count + i)
        arrays.append(values.astype(numpy_dtype(dtype))[i:])
    return arrays


def assert_same(results: list[Any], expected: Any, context: Any) -> None:
    for result in results:
        assert result.tobytes() == expected.tobytes(), context


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", list(DType.__members__.values()), ids=lambda d: d.name)
def test_many_inputs_are_reduced_in_order_into_many_outputs(dtype: DType, simd: str) -> None:
    shapes = itertools.product((1, 2, 3, 4, 7, 8, 16), (1, 2, 8), (False, True))
    for index, (in_count, out_count, streaming) in enumerate(shapes):
        # Every shape with counts of all sizes, which wander through all remainders.
        for count in (index % 9, 17 + 7 * index, 2000 + 13 * index):
            ins = numbers(dtype, count, in_count)
            outs = numbers(dtype, count, out_count)
            for op in ReduceOp.__members__.values():
                expected = reference(op, dtype, ins, {})
                _core.reduce_many(op, dtype, outs, ins, streaming=streaming, simd=simd)
                assert_same(outs, expected, (op, in_count, out_count, streaming, count))


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", [DType.uint8, DType.float16, DType.float32], ids=lambda d: d.name)
def test_every_count_up_to_300_is_right(dtype: DType, simd: str) -> None:
    for count in range(301):
        ins, out = numbers(dtype, count, 3), np.empty(count, numpy_dtype(dtype))
        expected = reference(ReduceOp.sum, dtype, ins, {})
        for streaming in (False, True):
            out[:] = 1
            _core.reduce_many(ReduceOp.sum, dtype, [out], ins, streaming=streaming, simd=simd)
            assert_same([out], expected, (count, streaming))


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_but_the_outputs_is_written_wherever_they_lie(streaming: bool, simd: str) -> None:
    for start, count in itertools.product((0, 1, 15, 16, 31, 63), (0, 1, 33, 64, 700, 5000)):
        ins = numbers(DType.int8, count, 3)
        expected = reference(ReduceOp.sum, DType.int8, ins, {})
        for second_start in (start, start + 64, start + 5):  # aligned alike, or not
            memories = [np.full(count + 200, 77, np.int8) for _ in range(2)]
            outs = [
                memory[begin : begin + count]
                for memory, begin in zip(memories, (start, second_start), strict=True)
            ]
            _core.reduce_many(
                ReduceOp.sum, DType.int8, outs, ins, streaming=streaming, simd=simd
            )  # fmt: skip
            assert_same(outs, expected, (start, count))
            for memory, out in zip(memories, outs, strict=True):
                out[:] = 77
                assert (memory == 77).all(), (start, count)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", list(DType.__members__.values()), ids=lambda d: d.name)
def test_outputs_may_be_the_inputs(dtype: DType, simd: str) -> None:
    for streaming, in_count, count in itertools.product((False, True), (1, 2, 8), (5, 333, 4099)):
        ins = numbers(dtype, count, in_count)
        expected = reference(ReduceOp.sum, dtype, ins, {})
        _core.reduce_many(ReduceOp.sum, dtype, ins, ins, streaming=streaming, simd=simd)
        assert_same(ins, expected, (in_count, count, streaming))


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize(
    "scaling",
    [
        {"prescale": 0.3},
        {"divisor": 3.0},
        {"postscale": -0.7},
        {"prescale": 1 / 7, "divisor": 5.0, "postscale": 3.3},
    ],
    ids=lambda scaling: "+".join(scaling),
)
def test_scaling_comes_before_and_after_the_reduction(
    dtype: DType, simd: str, scaling: dict[str, float]
) -> None:
    for in_count, count in itertools.product((1, 2, 4, 7), (3, 40, 2100)):
        ins, out = numbers(dtype, count, in_count), np.empty(count, numpy_dtype(dtype))
        for op in ReduceOp.__members__.values():
            expected = reference(op, dtype, ins, scaling)
            _core.reduce_many(op, dtype, [out], ins, simd=simd, **scaling)
            assert_same([out], expected, (op, in_count, count))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_dot_products_are_in_double_precision_and_the_same_in_all_instruction_sets(
    dtype: DType,
) -> None:
    for count in (*COUNTS, 10_007):
        a, b = numbers(dtype, count, 2)
        results = [_core.dots(dtype, a, b, simd=simd) for simd in SIMD]
        assert all(result == results[0] for result in results), count
        wide = [x.astype(np.longdouble) for x in (a, b)]
        for result, (x, y) in zip(results[0], [(0, 0), (0, 1), (1, 1)], strict=True):
            exact, terms = wide[x] @ wide[y], np.abs(wide[x]) @ np.abs(wide[y])
            assert abs(result - exact) <= (count / 16 + 5) * 2.0**-53 * terms


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_dot_products_of_special_values(dtype: DType, simd: str) -> None:
    x = np.ones(40, numpy_dtype(dtype))
    tiny = ml_dtypes.finfo(x.dtype).smallest_subnormal
    y = np.full_like(x, tiny)
    squares = 0.0 if dtype is DType.float64 else 40 * float(tiny) ** 2
    assert _core.dots(dtype, x, y, simd=simd) == (40.0, 40 * float(tiny), squares)
    y[7] = np.inf
    assert _core.dots(dtype, x, y, simd=simd) == (40.0, np.inf, np.inf)
    y[39] = np.nan
    assert np.isnan(_core.dots(dtype, x, y, simd=simd)[1:]).all()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_weighted_sums_are_computed_in_the_type_of_the_computation(dtype: DType, simd: str) -> None:
    wide = np.float64 if dtype is DType.float64 else np.float32
    for count, weights in itertools.product(COUNTS, [(1.0, 1.0), (0.3, -4.7)]):
        a, b = numbers(dtype, count, 2)
        left, right = (x.astype(wide) * wide(w) for x, w in zip((a, b), weights, strict=True))
        expected = (left + right).astype(a.dtype)
        _core.add_weighted(dtype, a, a, weights[0], b, weights[1], simd=simd)  # in place
        assert a.tobytes() == expected.tobytes(), (count, weights)


HALVES = pytest.mark.parametrize("dtype", [DType.float16, DType.bfloat16], ids=lambda d: d.name)


@pytest.mark.parametrize("simd", SIMD)
@HALVES
@pytest.mark.parametrize("held", [(1, 1), (3, 1), (2, 5), (0, 7)])
def test_the_mean_of_two_means_is_rounded_once(
    dtype: DType, held: tuple[int, int], simd: str
) -> None:
    pairs = [
        (any_bits(dtype, 1003, 5), any_bits(dtype, 1003, 6)),
        (any_bits(dtype, 5, 7), any_bits(dtype, 5, 8)),
        special_values(dtype),
    ]
    weights = [np.float32(each / sum(held)) for each in held]
    for a, b in pairs:
        with np.errstate(all="ignore"):
            left, right = a.astype(np.float32) * weights[0], b.astype(np.float32) * weights[1]
            exact = (left + right).astype(a.dtype)
        result = np.empty_like(a)
        _core.mean(dtype, result, a, held[0], b, held[1], simd=simd)
        nan = np.isnan(exact)
        assert (np.isnan(result) == nan).all()
        assert result[~nan].tobytes() == exact[~nan].tobytes()


@pytest.mark.parametrize("simd", SIMD)
@HALVES
@pytest.mark.parametrize(
    "scaling", [{}, {"prescale": 1e30, "postscale": 1e-30}], ids=["", "scaled"]
)
def test_averages_of_the_largest_numbers_are_finite(
    dtype: DType, scaling: dict[str, float], simd: str
) -> None:
    largest = ml_dtypes.finfo(numpy_dtype(dtype)).max
    for in_count in (2, 3, 64):
        ins = [np.full(100, largest, numpy_dtype(dtype)) for _ in range(in_count)]
        out = np.empty_like(ins[0])
        _core.reduce_many(
            ReduceOp.sum, dtype, [out], ins, divisor=float(in_count), simd=simd,
            **scaling,
        )  # fmt: skip
        assert (out == largest).all(), in_count


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_special_values_survive_many_inputs(dtype: DType) -> None:
    a, b = special_values(dtype)
    ins = [a, b, b[::-1].copy(), a[::-1].copy()]
    nan = np.isnan(np.stack(ins)).any(0)
    zero = (np.stack(ins) == 0).all(0)
    for op, exact in ((ReduceOp.min, np.minimum), (ReduceOp.max, np.maximum)):
        results = []
        for simd in SIMD:
            out = np.empty_like(a)
            _core.reduce_many(op, dtype, [out], ins, simd=simd)
            results.append(out)
        assert_same(results, results[0], op)
        assert (np.isnan(out) == nan).all()
        assert (out[~nan] == exact.reduce(ins)[~nan]).all()
        minus = np.signbit(np.stack(ins)[:, zero])
        expected = minus.any(0) if op is ReduceOp.min else minus.all(0)
        assert (np.signbit(out[zero]) == expected).all()


@pytest.mark.parametrize("dtype", [DType.float16, DType.bfloat16], ids=lambda d: d.name)
def test_half_types_are_rounded_once_however_many_inputs(dtype: DType) -> None:
    # A quarter of the distance between numbers near 1 would be lost in every single addition.
    quarter = {DType.float16: 2.0**-12, DType.bfloat16: 2.0**-9}[dtype]
    ins = [np.full(50, x, numpy_dtype(dtype)) for x in (1.0, quarter, quarter, quarter, quarter)]
    for simd in SIMD:
        out = np.empty_like(ins[0])
        _core.reduce_many(ReduceOp.sum, dtype, [out], ins, simd=simd)
        assert (out.astype(np.float64) == 1 + 4 * quarter).all()


@pytest.mark.parametrize("dtype", list(DType.__members__.values()), ids=lambda d: d.name)
def test_one_input_that_is_not_scaled_is_copied_bit_for_bit(dtype: DType) -> None:
    bits = np.random.default_rng(13).integers(0, 256, 808, np.uint8)
    outs = [np.empty_like(bits), np.empty_like(bits)]
    _core.reduce_many(ReduceOp.min, dtype, outs, [bits])
    assert_same(outs, bits, dtype)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("streaming", [False, True])
def test_copies(streaming: bool, simd: str) -> None:
    memory = np.random.default_rng(14).integers(0, 256, 9000, np.uint8)
    for start, size in itertools.product((0, 1, 63), (0, 1, 64, 100, 4096, 8001)):
        target = np.zeros(9000, np.uint8)
        source = memory[start : start + size]
        _core.copy_bytes(target[7 : 7 + size], source, streaming=streaming, simd=simd)
        assert (target[7 : 7 + size] == source).all()
        assert not target[:7].any() and not target[7 + size :].any()


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
