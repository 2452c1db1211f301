"""Gradients that are reduced before the update: `DistributedOptimizer.ready`, in a world of one rank.

What several ranks do together is in tests/mpi/test_asynchronous.py.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ronde
from ronde._ready import Ready
from wrapped import Stepper, same


def test_the_update_gets_what_was_ready_and_what_was_not() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner, prescale_factor=2.0, postscale_factor=5.0)
    for step in range(3):
        grads = [np.full(3, 1.0 + step), None, np.full((2, 2), 2.0 + step)]
        opt.ready(2, grads[2])
        opt.step(grads)
        first, nothing, second = inner.given[-1]
        assert same(first, np.full(3, 10.0 + 10 * step)) and nothing is None
        assert same(second, np.full((2, 2), 20.0 + 10 * step))
        assert same(grads[2], np.full((2, 2), 2.0 + step))


@pytest.mark.parametrize(
    ("label", "grads"),
    [
        ("w", {"w": np.ones(3), "b": np.ones(1)}),
        (("layer", 1), {"layer": [np.ones(1), np.ones(3)]}),
        (0, np.ones(3)),
    ],
)
def test_labels_are_those_of_the_structure(label: Any, grads: Any) -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    found = grads
    for each in label if isinstance(label, tuple) else [label] if isinstance(grads, dict) else []:
        found = found[each]
    opt.ready(label, found)
    opt.step(grads)
    assert repr(inner.given[-1]) == repr(grads)


def test_another_view_of_the_same_elements_is_the_same_array() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    grad = np.arange(6.0)
    opt.ready(0, grad.reshape(2, 3))
    opt.step([grad.reshape(2, 3)])
    assert same(inner.given[-1][0], np.arange(6.0).reshape(2, 3))


def test_what_is_not_the_array_that_was_ready_is_refused() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    grad = np.ones(3)
    opt.ready(0, grad)
    with pytest.raises(ValueError, match=r"grads\[0\] is not the array that ready\(\) was given"):
        opt.step([grad * 0.5])
    with pytest.raises(ValueError, match=r"gradient of 0 was ready, and grads has none"):
        opt.step([None, grad])
    with pytest.raises(ValueError, match="gradient of 0 is ready already"):
        opt.ready(0, grad)
    opt.step([grad])  # nothing was lost
    assert same(inner.given[-1][0], np.ones(3))


def test_a_step_can_be_skipped() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    opt.ready(0, np.full(3, np.inf))
    opt.discard_ready()
    opt.ready(0, grad := np.ones(3))
    opt.step([grad])
    assert same(inner.given[-1][0], np.ones(3))


@pytest.mark.parametrize("error", [ronde.RondeError("lost"), ArithmeticError("not today")])
def test_whatever_ends_one_of_them_all_are_waited_for(error: Exception) -> None:
    class Call:
        waited = False

        def wait(self) -> None:
            self.waited = True
            raise error

    ready, calls = Ready(), [Call() for _ in range(3)]
    for label, call in enumerate(calls):
        ready.add(label, np.ones(3), call)  # type: ignore[arg-type]
    with pytest.raises(type(error), match=str(error)):
        ready.discard()
    assert all(call.waited for call in calls)
    assert all(label not in ready for label in range(3))


def test_passes_are_added_up() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=3)
    for turn in range(6):
        grads = [np.full(3, float(turn)), np.full(2, 1.0)]
        opt.ready(1, grads[1])
        opt.ready(0, grads[0])
        opt.step(grads)
        if turn % 3 == 2:
            assert same(inner.given[-1][0], np.full(3, 3.0 * turn - 3.0))
            assert same(inner.given[-1][1], np.full(2, 3.0))


def test_a_label_that_no_pass_had_is_refused() -> None:
    opt = ronde.DistributedOptimizer(Stepper(), backward_passes_per_step=2)
    opt.step([np.ones(3)])
    with pytest.raises(ValueError, match="no pass of this step had a gradient for 7"):
        opt.ready(7, np.ones(3))


def test_what_is_no_array_is_refused_at_once() -> None:
    opt = ronde.DistributedOptimizer(Stepper())
    with pytest.raises(TypeError, match="an array is needed"):
        opt.ready(0, "gradient")
    opt.ready(0, np.ones(1))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied_in_between(copied: Callable[[Any], Any]) -> None:
    opt = ronde.DistributedOptimizer(Stepper())
    grad = np.ones(3)
    opt.ready(0, grad)
    with pytest.raises(ronde.RondeError, match="update before"):
        copied(opt)
    opt.step([grad])
    copied(opt)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_has_gradients_of_its_own(copied: Callable[[Any], Any]) -> None:
    opt = ronde.DistributedOptimizer(Stepper())
    other = copied(opt)
    grad = np.ones(3)
    opt.ready(0, grad)
    other.step([np.zeros(3)])
    assert same(other.wrapped_optimizer.given[-1][0], np.zeros(3))
    opt.step([grad])
    assert same(opt.wrapped_optimizer.given[-1][0], np.ones(3))
