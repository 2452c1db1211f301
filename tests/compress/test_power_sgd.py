"""PowerSGD: sums of matrices by two thin factors, with a warm start and error feedback."""

from __future__ import annotations

import copy
import pickle
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import EPSILON, columns, normal, rows, seeds, wide
from ronde.compression import powersgd

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinity is meant


class PowerSGD(powersgd):  # type: ignore[misc]
    """One that keeps the residuals, as error feedback does."""

    def __init__(self, rank: int = 4, *, seed: int = 0) -> None:
        super().__init__(rank, seed=seed)
        self.residuals: dict[str, Any] = {}

    def reduce(  # type: ignore[override]
        self, matrices: Any, names: Any, allreduce: Any, ranks: int, factor: float, outputs: Any
    ) -> None:
        for x, name in zip(matrices, names, strict=True):
            self.residuals.setdefault(name, np.zeros(x.size, np.float32))
        residuals = [self.residuals[name] for name in names]
        super().reduce(matrices, residuals, names, allreduce, ranks, factor, outputs)

    def residual(self, name: str) -> Any:
        return self.residuals[name].copy()


class Ranks:
    """Some ranks of PowerSGD, in step: each allreduce adds what all of them have brought."""

    def __init__(self, count: int, **parameters: Any) -> None:
        self.methods = [PowerSGD(**parameters) for _ in range(count)]

    def reduce(self, matrices: list[list[Any]], names: list[str], factor: float = 1.0) -> list[Any]:
        """For the matrices of each rank, their approximate sums: the same on all ranks."""
        count = len(self.methods)
        barrier, brought = threading.Barrier(count), [[]] * count
        results: list[Any] = [None] * count

        def run(rank: int) -> None:
            def allreduce(group: list[Any]) -> None:
                brought[rank] = [x.copy() for x in group]
                barrier.wait(60)
                for i, x in enumerate(group):
                    x[...] = sum(other[i] for other in brought)
                barrier.wait(60)

            outputs = [np.full_like(x, 7) for x in matrices[rank]]
            self.methods[rank].reduce(matrices[rank], names, allreduce, count, factor, outputs)
            results[rank] = outputs

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for other in results[1:]:
            for x, y in zip(results[0], other, strict=True):
                assert x.tobytes() == y.tobytes()
        return list(results[0])


def alone(method: PowerSGD, x: Any, name: str = "w", factor: float = 1.0) -> Any:
    out = np.empty_like(x)
    method.reduce([x], [name], lambda group: None, 1, factor, [out])
    return out


def best_error(x: Any, rank: int) -> float:
    """The error of the best approximation of that rank (Eckart and Young)."""
    values = np.linalg.svd(wide(x), compute_uv=False)
    return float(np.sqrt((values[rank:] ** 2).sum()))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), rows, columns, st.sampled_from([1, 2, 4, 7]), seeds)
def test_sums_and_residuals_add_up_to_all_gradients(
    count: int, m: int, n: int, rank: int, seed: int
) -> None:
    ranks, steps = Ranks(count, rank=rank), 3
    given, sent = np.zeros((m, n)), np.zeros((m, n))
    for step in range(steps):
        grads = [normal(m, n, seed=seed + 10 * step + i) for i in range(count)]
        given += sum(wide(x) for x in grads)
        sent += wide(ranks.reduce([[x] for x in grads], ["w"])[0])
    left = sum(wide(method.residual("w")) for method in ranks.methods).reshape(m, n)
    size = np.abs(given).max() + np.abs(sent).max() + count * steps
    np.testing.assert_allclose(sent + left, given, atol=40 * rank * steps * EPSILON * size)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (7, 5), (64, 200), (200, 33)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_matrix_of_that_rank_is_found_at_once(shape: tuple[int, int], rank: int) -> None:
    x = normal(shape[0], rank, seed=1) @ normal(rank, shape[1], seed=2)
    method, scale = PowerSGD(rank), np.abs(x).max()
    for _ in range(3):
        np.testing.assert_allclose(alone(method, x), x, atol=2e-5 * scale)
    assert np.linalg.norm(method.residual("w")) < 1e-4 * np.linalg.norm(x)


def test_steps_come_to_the_best_approximation() -> None:
    """Without what is left out, they are a subspace iteration on the matrix."""
    random = np.random.default_rng(3)
    u, _ = np.linalg.qr(random.standard_normal((80, 60)))
    v, _ = np.linalg.qr(random.standard_normal((60, 60)))
    x = ((u * 0.8 ** np.arange(60)) @ v.T).astype(np.float32)
    method, errors = PowerSGD(4), []
    for _ in range(30):
        errors.append(float(np.linalg.norm(alone(method, x) - x)))
        method.residuals["w"][...] = 0
    best = best_error(x, 4)
    assert best <= errors[0] * (1 + 1e-6)
    assert errors[-1] < best * (1 + 1e-4)
    assert all(after <= before * (1 + 1e-4) for before, after in pairwise(errors))


def test_with_feedback_the_mean_of_steps_comes_to_the_matrix() -> None:
    x, method = normal(60, 50), PowerSGD(4)
    total, errors = np.zeros((60, 50)), {}
    for step in range(1, 201):
        total += alone(method, x)
        errors[step] = np.linalg.norm(total / step - x) / np.linalg.norm(x)
    assert errors[200] < 0.5 * errors[50] < 0.5 * errors[1]
    assert errors[200] < 0.15


def test_zero_matrices_do_not_end_the_warm_start() -> None:
    method, x = PowerSGD(3), normal(20, 30)
    for _ in range(3):
        assert not alone(method, np.zeros_like(x)).any()
    one = normal(20, 1) @ normal(1, 30)
    np.testing.assert_allclose(alone(method, one), one, atol=1e-4)
    assert np.linalg.matrix_rank(method.state_dict()["factors"]["w"]) == 3
    assert np.linalg.matrix_rank(alone(method, x)) == 3


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1e20, 1e35])
def test_the_scale_does_not_matter(scale: float) -> None:
    x = normal(40, 30)
    method, other = PowerSGD(3), PowerSGD(3)
    for _ in range(3):
        y = wide(alone(method, (x * np.float32(scale)))) / scale
        np.testing.assert_allclose(y, alone(other, x), atol=1e-4)


def test_many_matrices_need_two_allreduces() -> None:
    shapes = [(30, 20), (4, 5, 6, 7), (9, 1), (2, 500)]
    xs = [normal(*shape) for shape in shapes]
    names = [f"w{i}" for i in range(4)]
    groups: list[list[tuple[int, ...]]] = []
    outputs = [np.empty_like(x) for x in xs]
    together = PowerSGD(3)
    together.reduce(
        xs, names, lambda group: groups.append([x.shape for x in group]), 1, 0.5, outputs
    )
    assert groups == [[(3, 30), (3, 4), (1, 9), (2, 2)], [(3, 20), (3, 210), (1, 1), (2, 500)]]
    apart = PowerSGD(3)
    for x, name, out in zip(xs, names, outputs, strict=True):
        assert alone(apart, x, name, 0.5).tobytes() == out.tobytes()
        assert together.residual(name).tobytes() == apart.residual(name).tobytes()


def test_results_may_take_the_place_of_the_matrices() -> None:
    x = normal(30, 20)
    wanted, inplace = alone(PowerSGD(2), x), x.copy()
    PowerSGD(2).reduce([inplace], ["w"], lambda group: None, 1, 1.0, [inplace])
    assert inplace.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_make_all_of_it_nan_and_leave_no_trace(bad: float) -> None:
    ranks = Ranks(3, rank=2)
    good = [[normal(20, 30, seed=i), normal(8, 9, seed=i)] for i in range(3)]
    ranks.reduce(good, ["w", "v"])
    before = [(method.residual("w"), method.state_dict()) for method in ranks.methods]
    spoilt = [[x.copy() for x in each] for each in good]
    spoilt[1][0][3, 4] = bad
    w, v = ranks.reduce(spoilt, ["w", "v"])
    assert np.isnan(w).all()
    assert np.isfinite(v).all()
    for rank, method in enumerate(ranks.methods):
        expected, state = before[rank]
        if rank == 1:
            expected[3 * 30 + 4] = 0
        np.testing.assert_allclose(method.residual("w"), expected, atol=1e-6)
        np.testing.assert_array_equal(method.state_dict()["factors"]["w"], state["factors"]["w"])
    assert np.isfinite(ranks.reduce(good, ["w", "v"])[0]).all()


def test_sums_beyond_float32_are_nan() -> None:
    method = PowerSGD(2)
    huge = np.full((30, 40), np.finfo(np.float32).max)
    assert np.isnan(alone(method, huge)).all()
    assert np.isfinite(method.residual("w")).all()
    assert np.isfinite(alone(method, normal(30, 40))).all()


def test_the_seed_and_the_name_choose_the_first_vectors() -> None:
    x = normal(30, 40)

    def first(seed: int, name: str) -> bytes:
        return bytes(alone(PowerSGD(2, seed=seed), x, name).tobytes())

    assert first(1, "w") == first(1, "w")
    assert len({first(1, "w"), first(2, "w"), first(1, "v")}) == 3


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    method, x = PowerSGD(3), normal(40, 30)
    alone(method, np.zeros_like(x))  # draws vectors anew
    alone(method, x)
    restored = PowerSGD(3)
    restored.load_state_dict(pickle.loads(pickle.dumps(method.state_dict())))
    restored.residuals["w"] = method.residual("w")
    twins = [restored, copy.deepcopy(method), pickle.loads(pickle.dumps(method))]
    wanted = [alone(method, x * step).tobytes() for step in (1, 0, 2)]
    for twin in twins:
        assert [alone(twin, x * step).tobytes() for step in (1, 0, 2)] == wanted


def test_what_does_not_fit_is_refused() -> None:
    for rank in (0, -1, 33):
        with pytest.raises(ValueError, match="the rank must be 1 to 32"):
            PowerSGD(rank)
    method = PowerSGD(2)
    alone(method, normal(4, 6))
    with pytest.raises(ValueError, match="residual of 'w' has 24 elements, the matrix 30"):
        alone(method, normal(6, 5))
    for x in (normal(5), normal(6, 4).T):
        with pytest.raises(ValueError, match="contiguous array of two or more dimensions"):
            method.reduce([x], ["v"], lambda group: None, 1, 1.0, [np.empty_like(x)])
    with pytest.raises(ValueError, match="contiguous array of float32"):
        alone(method, np.ones((4, 6)), "u")


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        ((), False),
        ((1000,), False),
        ((0, 100), False),
        ((100, 0), False),
        ((1, 1000), False),
        ((1000, 1), False),
        ((8, 8), False),  # 4 (8 + 8) = 8 * 8
        ((8, 9), True),
        ((4, 1000), False),  # 4 (4 + 1000)
        ((5, 1000), True),
        ((8, 3, 3), True),
        ((64, 64, 3, 3), True),
    ],
)
def test_small_matrices_are_not_worth_it(shape: tuple[int, ...], answer: bool) -> None:
    assert PowerSGD(4).worth_it(shape) is answer


# ---------------------------------------------------------------------------- payloads


@pytest.mark.parametrize("shape", [(60, 50), (16, 4, 9), (3, 4), (700,), (), (0, 5)])
def test_payloads_are_factors_or_the_values_themselves(shape: tuple[int, ...]) -> None:
    c, x = PowerSGD(4), normal(*shape)
    before = x.copy()
    payload, ctx = c.compress(x)
    y = c.decompress(payload, ctx)
    assert payload.dtype == np.uint8
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert x.tobytes() == before.tobytes()
    if c.worth_it(shape):
        assert payload.nbytes == 4 * 4 * (shape[0] + x.size // shape[0])
        error = np.linalg.norm(x - y)
        best = best_error(x.reshape(shape[0], -1), 4)
        assert best * (1 - 1e-6) <= error <= 1.2 * best
    else:
        assert y.tobytes() == x.tobytes()
    assert c.compress(x)[0].tobytes() == payload.tobytes()
    assert not c.state_dict()["factors"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_payloads_of_nan_and_infinity_are_nan(bad: float) -> None:
    c, x = PowerSGD(4), normal(60, 50)
    x[0, 0] = bad
    assert np.isnan(c.decompress(*c.compress(x))).all()


@pytest.mark.parametrize("shape", [(60, 50), (7,)])
def test_malformed_payloads_are_refused(shape: tuple[int, ...]) -> None:
    c = PowerSGD(4)
    payload, ctx = c.compress(normal(*shape))
    bad = (payload[:-1], payload[:-4], payload[:0], np.append(payload, payload[:4]))
    for other in (*bad, payload.view(np.float32), payload.reshape(2, -1)):
        with pytest.raises(ValueError, match="a payload of this array has"):
            c.decompress(other, ctx)
    shifted = np.append(payload, payload[:1])[1:]
    shifted[...] = payload
    assert c.decompress(shifted, ctx).tobytes() == c.decompress(payload, ctx).tobytes()
