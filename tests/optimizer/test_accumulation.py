"""DistributedOptimizer with several backward passes to a step."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest
import ronde
from wrapped import Stepper, same, sgd


def test_every_kth_call_updates_with_the_sum_of_the_passes() -> None:
    inner, buffer = Stepper(), np.zeros(2)
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=3)
    for i in range(7):
        buffer[:] = i  # a caller may use one array for all passes
        assert opt.step([buffer]) == ("stepped" if i % 3 == 2 else None)
    assert [grads[0].tolist() for grads in inner.given] == [[3.0, 3.0], [12.0, 12.0]]


def test_calls_that_do_not_update_do_not_communicate(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = ronde.DistributedOptimizer(Stepper(), backward_passes_per_step=2)
    opt.step([np.ones(1)])
    assert opt.communication_seconds == 0.0
    opt.step([np.ones(1)])
    assert opt.communication_seconds > 0.0


def test_a_callable_that_does_not_update_returns_its_parameters() -> None:
    opt = ronde.DistributedOptimizer(sgd, backward_passes_per_step=2)
    params = np.zeros(1)
    assert opt(params, np.ones(1)) is params
    assert same(opt(params, np.ones(1)), np.full(1, -2.0))


def test_a_missing_gradient_adds_nothing() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=2)
    opt.step([None, np.ones(1), None])
    opt.step([np.ones(1), None, None])
    assert inner.given == [[np.ones(1), np.ones(1), None]]


@pytest.mark.parametrize(
    "ones",
    [
        np.float32(1),
        1.0,
        np.ones((), np.float16),
        np.ones((2, 2), order="F"),
        array.array("d", [1.0]),
    ],
    ids=["number", "float", "no_dimensions", "fortran", "buffer"],
)
def test_every_kind_of_array_is_added_elementwise(ones: Any) -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=2)
    opt.step(ones)
    opt.step(ones)
    assert np.shape(inner.given[0]) == np.shape(ones)
    assert (np.asarray(inner.given[0]) == 2).all()
    assert np.asarray(inner.given[0]).dtype == np.asarray(ones).dtype


@pytest.mark.parametrize(
    "second",
    [np.ones(1), np.ones(3, np.float32), [np.ones(3)] * 2, {"w": np.ones(3)}],
    ids=["shape", "dtype", "length", "keys"],
)
def test_passes_that_do_not_fit_each_other_are_refused(second: Any) -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=2)
    opt.step(np.ones(3))
    with pytest.raises(ValueError, match="passes of a step need gradients"):
        opt.step(second)
    opt.step(np.ones(3))  # the failed pass was not counted
    assert same(inner.given[0], np.full(3, 2.0))
