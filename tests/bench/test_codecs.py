"""What is measured of compressors: figures that follow from what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ronde.bench import codecs, compressors

COUNT = 1 << 18
LINK = 0.125


class Alone:
    """A world of one rank, or of several that all measure the same."""

    rank = 0

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def gather(self, numbers: Sequence[float]) -> Any:
        return np.array([numbers] * self.size, np.float64)


def values(distribution: str = "normal") -> Any:
    return codecs.DISTRIBUTIONS[distribution](np.random.default_rng(3), COUNT)


def measured(name: str, x: Any, rounds: int = 1, size: int = 1) -> codecs.CodecRow:
    rows: list[codecs.CodecRow] = []
    codecs.measure(Alone(size), [name], x, rounds, rows.append)
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("distribution", codecs.DISTRIBUTIONS)
def test_values_have_mean_0_and_variance_1(distribution: str) -> None:
    x = values(distribution)
    assert (x.dtype, x.size) == (np.float32, COUNT)
    assert abs(x.mean()) < 6 / math.sqrt(COUNT)
    # The variance of a square is 5 at most (Laplace).
    assert abs(np.square(x).mean() - 1) < 6 * math.sqrt(5 / COUNT)
    if distribution == "uniform":
        assert np.abs(x).max() <= math.sqrt(3)


@pytest.mark.parametrize("name", compressors.everything())
def test_bytes_are_those_of_the_payload(name: str) -> None:
    x = values()
    row = measured(name, x)
    assert row.compressor == name
    assert (row.bytes, row.ranks) == (x.nbytes, 1)
    assert row.payload == compressors.make(name).compress(x)[0].size
    assert row.fewer == x.nbytes / row.payload
    assert row.unbiased == compressors.make(name).unbiased


# What docs/compression.md says of one value, as a share of the root of the mean square.
BOUNDS = {
    "bf16": lambda x: 1 / 256,
    "fp16": lambda x: 1 / 2048 + 2**-25,
    "fp8": lambda x: 1 / 16 + 2**-10 * np.abs(x).max(),
    "int8": lambda x: np.abs(x).max() / 127 / 2,
    "int4": lambda x: np.abs(x).max() / 7 / 2,
    "linear(bits=3)": lambda x: np.abs(x).max() / 3 / 2,
    "linear(bits=3, rounding='stochastic')": lambda x: np.abs(x).max() / 3,
    "ternary": lambda x: np.abs(x).max(),
    "threshold(2.5)": lambda x: 2.5,
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("distribution", codecs.DISTRIBUTIONS)
def test_errors_are_within_their_bounds(name: str, distribution: str) -> None:
    x = values(distribution)
    bound = BOUNDS[name](x) / math.sqrt(np.square(x, dtype=np.float64).mean())
    assert bound / 100 < measured(name, x).error <= bound


def test_the_error_of_a_selection_is_what_is_not_sent() -> None:
    x = values()
    squares = np.sort(np.square(x.astype(np.float64)))
    kept = round(0.01 * COUNT)
    left = squares[:-kept].sum() / squares.sum()
    row = measured("topk(0.01)", x)
    assert row.error == pytest.approx(math.sqrt(left), rel=1e-6)
    assert row.bias == pytest.approx(-left, rel=1e-6)


def test_signs_are_too_small_by_what_normal_values_say() -> None:
    row = measured("sign", values())
    assert row.bias == pytest.approx(2 / math.pi - 1, abs=0.01)
    assert row.error == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.01)
    assert row.bias_error == 0


@pytest.mark.parametrize("name", ["qsgd", "ternary", "linear(bits=3, rounding='stochastic')"])
@pytest.mark.parametrize("distribution", codecs.DISTRIBUTIONS)
def test_random_rounding_is_right_on_average(name: str, distribution: str) -> None:
    row = measured(name, values(distribution))
    assert row.unbiased
    assert 0 < row.bias_error < 0.01
    assert abs(row.bias) < 6 * row.bias_error


def test_random_selections_are_too_small_by_what_they_leave_out() -> None:
    row = measured("randomk(0.25)", values())
    assert abs(row.bias + 0.75) < 6 * row.bias_error


@pytest.mark.parametrize("name", ["bf16", "fp8", "int4"])
def test_rounding_to_nearest_has_no_spread(name: str) -> None:
    row = measured(name, values())
    assert row.bias_error == 0
    assert abs(row.bias) <= row.error


def test_speeds_are_those_of_the_median_round() -> None:
    row = measured("int8", values(), rounds=3)
    assert {len(times) for times in row.times.values()} == {3}
    assert row.speed("encode") == row.bytes / sorted(row.times["encode"])[1] / 1e9 > 0
    assert row.shares("pass", "feedback") == [
        a / b for a, b in zip(row.times["pass"], row.times["feedback"], strict=True)
    ]


def test_a_link_carries_payloads_as_fast_as_a_core_makes_them() -> None:
    times = {"encode": [2.0], "feedback": [4.0], "add": [4.0]}
    row = codecs.CodecRow("x", 8 * 10**9, 1, 10**9, False, 0.1, 0.0, 0.0, times)
    assert row.over(0.01) == pytest.approx(0.08)
    assert row.over(100) == pytest.approx(1.0)  # 2 GB/s each way, one after the other


def test_ranks_are_averaged_and_draw_by_themselves() -> None:
    one, four = measured("qsgd", values()), measured("qsgd", values(), size=4)
    assert (four.ranks, four.error, four.bias) == (4, one.error, one.bias)
    assert four.bias_error == pytest.approx(one.bias_error / 2)
