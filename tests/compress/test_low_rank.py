"""Low rank: the three passes over a matrix, and orthonormal vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import FINITE, vector
from matrices import EPSILON, columns, normal, rows, seeds, wide
from ronde import _core

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinity is meant

SIMD = _core.simd_levels()
RANKS = (1, 2, 3, 4, 5, 7, 8, 9, 32)


def close(got: Any, wanted: Any, size: Any, roundings: float) -> None:
    """Within so many roundings of a number of that size."""
    assert got.dtype == np.float32
    assert (np.abs(got - wanted) <= roundings * EPSILON * size + 1e-42).all()


# ---------------------------------------------------------------------------- the passes


@settings(deadline=None)
@given(rows, columns, st.sampled_from(RANKS), seeds, st.booleans(), st.sampled_from(SIMD))
def test_the_passes_are_matrix_products(
    m: int, n: int, rank: int, seed: int, feedback: bool, simd: str
) -> None:
    product = _core.LowRank(m, n, rank, simd=simd)
    matrix, right = normal(m, n, seed=seed), normal(rank, n, seed=seed + 1)
    before, residual = matrix.copy(), normal(m, n, seed=seed + 2) if feedback else None
    total = matrix + residual if residual is not None else matrix

    left = product.project(matrix, right, residual)
    assert left.shape == (rank, m)
    close(left, wide(right) @ wide(total).T, np.abs(right) @ np.abs(total).T, 80)
    assert residual is None or residual.tobytes() == total.tobytes()
    assert matrix.tobytes() == before.tobytes()

    back = product.back_project(total, left)
    assert back.shape == (rank, n)
    close(back, wide(left) @ wide(total), np.abs(left) @ np.abs(total), 4 + m / 4)

    out = np.full((m, n), 7, np.float32)
    wanted, size = wide(left).T @ wide(right), np.abs(left).T @ np.abs(right)
    product.reconstruct(left, right, out, 0.75, residual, 3)
    close(out, 0.75 * wanted, size, rank + 2)
    if residual is not None:
        close(residual, total - wanted / 3, size + np.abs(total), rank + 4)


@settings(deadline=None)
@given(
    rows,
    columns,
    st.sampled_from(RANKS),
    st.sampled_from(FINITE),
    seeds,
)
def test_all_instruction_sets_give_the_same_bits(
    m: int, n: int, rank: int, kind: str, seed: int
) -> None:
    results = []
    for simd in SIMD:
        product = _core.LowRank(m, n, rank, simd=simd)
        matrix, residual = vector(kind, m * n, seed), normal(m * n, seed=seed)
        left = product.project(matrix, normal(rank, n), residual)
        right = product.back_project(residual, normal(rank, m))
        out = np.empty(m * n, np.float32)
        product.reconstruct(normal(rank, m), normal(rank, n), out, 0.3, residual, 3)
        alone = product.project(matrix, normal(rank, n))
        arrays = (left, right, out, residual, alone)
        # All NaN are one: which of two a sum hands on is the compiler's choice.
        results.append(b"".join(np.where(np.isnan(x), np.nan, x).tobytes() for x in arrays))
    assert len(set(results)) == 1


def test_nothing_outside_is_touched() -> None:
    for m, n, rank in ((5, 33, 3), (9, 1030, 4), (4, 7, 1)):
        product = _core.LowRank(m, n, rank)
        fences = [np.full(m * n + 64, 3, np.float32) for _ in range(2)]
        residual, out = (fence[32:-32] for fence in fences)
        product.project(normal(m, n), normal(rank, n), residual)
        product.reconstruct(normal(rank, m), normal(rank, n), out, 1, residual, 2)
        for fence in fences:
            assert (fence[:32] == 3).all() and (fence[-32:] == 3).all()


def test_an_empty_matrix_has_empty_products() -> None:
    for m, n in ((0, 3), (3, 0), (0, 0)):
        product, nothing = _core.LowRank(m, n, 2), np.empty((m, n), np.float32)
        assert not product.project(nothing, np.ones((2, n), np.float32), nothing.copy()).any()
        assert not product.back_project(nothing, np.ones((2, m), np.float32)).any()
        product.reconstruct(np.ones((2, m), np.float32), np.ones((2, n), np.float32), nothing)


def test_wrong_arguments_are_refused() -> None:
    for rank in (0, 33):
        with pytest.raises(ValueError, match=f"the rank must be 1 to 32, not {rank}"):
            _core.LowRank(3, 4, rank)
    product = _core.LowRank(3, 4, 2)
    matrix, left, right = normal(3, 4), normal(2, 3), normal(2, 4)
    wrong = normal(5)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("the matrix", lambda: product.project(wrong, right)),
        ("right", lambda: product.project(matrix, wrong)),
        ("the residual", lambda: product.project(matrix, right, wrong)),
        ("the matrix", lambda: product.back_project(wrong, left)),
        ("left", lambda: product.back_project(matrix, wrong)),
        ("left", lambda: product.reconstruct(wrong, right, matrix)),
        ("right", lambda: product.reconstruct(left, wrong, matrix)),
        ("out", lambda: product.reconstruct(left, right, wrong)),
        ("the residual", lambda: product.reconstruct(left, right, matrix, 1, wrong)),
    ]
    for what, call in calls:
        with pytest.raises(ValueError, match=f"{what} has 5 elements, not"):
            call()
    with pytest.raises(ValueError, match="at least one rank"):
        product.reconstruct(left, right, matrix, 1, None, 0)
    with pytest.raises(ValueError, match="the matrix must be a contiguous array of float32"):
        product.project(wide(matrix), right)
    with pytest.raises(ValueError, match="rows of a matrix"):
        _core.orthogonalise(wrong)
    with pytest.raises(ValueError, match=r"read.only"):
        matrix.flags.writeable = False
        product.reconstruct(left, right, matrix)


# ---------------------------------------------------------------------------- orthonormal vectors


@settings(deadline=None)
@given(st.sampled_from(RANKS), st.integers(64, 300), seeds, st.sampled_from([0.0, 1e-2, 1e-3]))
def test_vectors_become_orthonormal(count: int, length: int, seed: int, apart: float) -> None:
    """Also where they are nearly the same, or of very different lengths."""
    scales = 10.0 ** np.random.default_rng(seed).integers(-30, 30, (count, 1))
    x = apart * normal(count, length, seed=seed) + normal(1, length, seed=seed + 1)
    x = ((x if apart else normal(count, length, seed=seed)) * scales).astype(np.float32)
    before = wide(x)
    assert _core.orthogonalise(x)
    np.testing.assert_allclose(wide(x) @ wide(x).T, np.eye(count), atol=count * 4 * EPSILON)
    # The first ones span what they did.
    for k in range(1, count + 1):
        outside = before[k - 1] - (before[k - 1] @ wide(x[:k]).T) @ wide(x[:k])
        assert np.linalg.norm(outside) < 1e-5 * np.linalg.norm(before[k - 1])


def test_what_others_span_becomes_zero() -> None:
    x = normal(6, 50)
    x[1] = 2 * x[0]
    x[3] = x[0] - 3 * x[2]
    x[4] = 0
    assert _core.orthogonalise(x)
    assert [bool(row.any()) for row in x] == [True, False, True, False, False, True]
    kept = wide(x[[0, 2, 5]])
    np.testing.assert_allclose(kept @ kept.T, np.eye(3), atol=1e-6)
    x = normal(5, 3)  # more than there is room for
    assert _core.orthogonalise(x)
    assert [bool(row.any()) for row in x] == [True, True, True, False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_stay_as_they_are(bad: float) -> None:
    x = normal(3, 20)
    x[2, 7] = bad
    before = x.copy()
    assert not _core.orthogonalise(x)
    assert x.tobytes() == before.tobytes()
