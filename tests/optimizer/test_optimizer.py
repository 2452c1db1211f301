"""DistributedOptimizer in a world of one rank: kinds, pass-through, errors.

What several ranks do together is in tests/mpi/test_training.py.
"""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import ronde
from ronde import context, optimizer
from ronde.process_set import global_process_set
from wrapped import Stepper, same, sgd


class Updater:
    def __init__(self) -> None:
        self.given: list[Any] = []

    def update_params(self, params: Any, grads: Any) -> None:
        self.given.append((params, grads))


class HoldingUpdater:
    """As scikit-learn's were before 0.24."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def update_params(self, grads: Any) -> None:
        self.given.append(grads)


# The kinds


def test_step_gets_the_gradients_and_its_result_comes_back() -> None:
    inner = Stepper()
    assert ronde.DistributedOptimizer(inner).step([np.ones(3)], 7, lr=8) == "stepped"
    assert same(inner.given[0][0], np.ones(3))
    assert inner.further == ((7,), {"lr": 8})


def test_step_takes_its_gradients_by_name() -> None:
    inner = Stepper()
    ronde.DistributedOptimizer(inner, op=ronde.Sum, prescale_factor=2.0).step(grads=[np.ones(3)])
    assert same(inner.given[0][0], np.full(3, 2.0))


@pytest.mark.parametrize("by_name", [False, True])
def test_update_params_gets_parameters_untouched(by_name: bool) -> None:
    inner, params = Updater(), [np.arange(3)]
    opt = ronde.DistributedOptimizer(inner, postscale_factor=3.0)
    if by_name:
        opt.update_params(params=params, grads=[np.ones(3)])
    else:
        opt.update_params(params, [np.ones(3)])
    given, grads = inner.given[0]
    assert given is params
    assert same(grads[0], np.full(3, 3.0))


def test_update_params_of_an_optimizer_that_holds_its_parameters() -> None:
    inner = HoldingUpdater()
    ronde.DistributedOptimizer(inner, postscale_factor=3.0).update_params([np.ones(3)])
    assert same(inner.given[0][0], np.full(3, 3.0))


def test_a_callable_is_called() -> None:
    opt = ronde.DistributedOptimizer(sgd, postscale_factor=2.0)
    assert same(opt(np.zeros(2), np.ones(2)), np.full(2, -2.0))
    assert same(opt(np.zeros(2), np.ones(2), 0.5), np.full(2, -1.0))
    assert same(opt(params=np.zeros(2), grads=np.ones(2), rate=0.5), np.full(2, -1.0))


@pytest.mark.parametrize("name", ["AdamOptimizer", "SGDOptimizer"])
def test_scikit_learn_updates_as_without_ronde(name: str) -> None:
    module = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    rng = np.random.default_rng(1)
    plain = [rng.normal(size=(4, 3)), rng.normal(size=3)]
    wrapped = copy.deepcopy(plain)
    alone = getattr(module, name)(plain, 0.1)
    opt = ronde.DistributedOptimizer(getattr(module, name)(wrapped, 0.1))
    for _ in range(5):
        grads = [rng.normal(size=(4, 3)), rng.normal(size=3)]
        alone.update_params(plain, grads)
        opt.update_params(wrapped, grads)
    assert all(same(a, b) for a, b in zip(plain, wrapped, strict=True))
    assert opt.learning_rate == alone.learning_rate


def test_only_the_method_of_the_kind_is_offered() -> None:
    updater = ronde.DistributedOptimizer(Updater())
    assert not hasattr(updater, "step")
    assert not callable(updater)
    stepper = ronde.DistributedOptimizer(Stepper())
    assert not hasattr(stepper, "update_params")
    assert not callable(stepper)
    function = ronde.DistributedOptimizer(sgd)
    assert callable(function)
    assert not hasattr(function, "step")


def test_update_params_goes_before_step_and_step_before_a_call() -> None:
    class Both(Stepper, Updater):
        def __call__(self) -> None: ...

    opt = ronde.DistributedOptimizer(Both())
    assert hasattr(opt, "update_params")
    assert not callable(opt)
    with pytest.raises(AttributeError, match="'step' of Both would update without the gradients"):
        opt.step([np.ones(1)])
    assert "step" not in dir(opt)

    class Called(Stepper):
        def __call__(self) -> None: ...

    assert not callable(ronde.DistributedOptimizer(Called()))


def test_a_kind_is_an_adapter_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class ApplyGradients(optimizer._Adapter):
        __slots__ = ()

        def apply_gradients(self, *args: Any, **kwargs: Any) -> Any:
            return self._ronde_reducer.update(self._ronde_wrapped.apply_gradients, 0, args, kwargs)

    class Inner:
        def apply_gradients(self, grads: Any, state: int) -> tuple[Any, int]:
            return grads, state

    monkeypatch.setitem(optimizer._KINDS, "apply_gradients", ApplyGradients)
    opt = ronde.DistributedOptimizer(Inner(), postscale_factor=2.0)
    assert opt.apply_gradients([np.ones(1)], 7) == ([np.full(1, 2.0)], 7)


def test_a_counter_named_step_is_an_attribute_like_others() -> None:
    inner = Updater()
    inner.step = 3  # type: ignore[attr-defined]
    opt = ronde.DistributedOptimizer(inner)
    opt.step += 1
    assert inner.step == 4  # type: ignore[attr-defined]


# Gradients


def test_the_structure_of_the_gradients_is_kept() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    pair = namedtuple("pair", "w b")
    opt.step([np.ones(1), None])
    opt.step((None, np.ones(1)))
    opt.step(pair(np.ones(1), None))
    opt.step({"w": None, "b": np.ones(1)})
    opt.step(np.ones(1))
    a_list, a_tuple, a_pair, a_dict, an_array = inner.given
    assert a_list == [np.ones(1), None]
    assert a_tuple == (None, np.ones(1))
    assert type(a_pair) is pair
    assert a_pair == (np.ones(1), None)
    assert list(a_dict.items()) == [("w", None), ("b", np.ones(1))]
    assert same(an_array, np.ones(1))


@pytest.mark.parametrize("none", [[], (), {}, [None, None]])
def test_no_gradients_at_all_are_a_step_too(none: Any) -> None:
    inner = Stepper()
    ronde.DistributedOptimizer(inner).step(none)
    assert inner.given == [none]


@pytest.mark.parametrize("passes", [1, 3])
def test_the_gradients_of_the_caller_are_left_alone(passes: int) -> None:
    inner, mine = Stepper(), [np.ones((2, 3), np.float32), np.ones(4)[::2]]
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=passes, prescale_factor=2.0)
    for _ in range(passes):
        opt.step(mine)
    assert all((grad == 1.0).all() for grad in mine)
    theirs = inner.given[0]
    assert [grad.dtype for grad in theirs] == [np.float32, np.float64]
    assert all((grad == 2.0 * passes).all() for grad in theirs)
    assert not any(np.shares_memory(a, b) for a, b in zip(mine, theirs, strict=True))


def test_integers_have_a_sum_and_no_average() -> None:
    inner = Stepper()
    ronde.DistributedOptimizer(inner, op=ronde.Sum).step([np.arange(3)])
    assert same(inner.given[0][0], np.arange(3))
    with pytest.raises(TypeError, match="average of int64"):
        ronde.DistributedOptimizer(inner).step([np.arange(3)])


@pytest.mark.frameworks
def test_torch_tensors_stay_tensors() -> None:
    torch = pytest.importorskip("torch")
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner, backward_passes_per_step=2)
    for _ in range(2):
        opt.step([torch.ones(3, dtype=torch.bfloat16)])
    assert torch.equal(inner.given[0][0], torch.full((3,), 2.0, dtype=torch.bfloat16))


# Gradient transformations


class Scale(NamedTuple):
    """As Optax has them: a named tuple of functions, with a state that passes through."""

    init: Callable[[Any], Any]
    update: Callable[..., Any]


def scale(step: float) -> Scale:
    def update(updates: Any, state: int, params: Any = None) -> Any:
        return {
            key: {k: -step * x for k, x in each.items()} for key, each in updates.items()
        }, state + 1

    return Scale(lambda params: 0, update)


def test_a_gradient_transformation_gets_reduced_gradients_and_zeros_leave_parameters() -> None:
    tx = ronde.DistributedOptimizer(scale(0.5), backward_passes_per_step=2)
    grads = {"a": {"w": np.ones((2, 2)), "b": np.ones(2)}, "c": {"w": np.ones(3, np.float32)}}
    state = tx.init(grads)
    updates, state = tx.update(grads, state, grads)
    assert state == 0
    assert same(updates["a"]["w"], np.zeros((2, 2)))
    assert same(updates["c"]["w"], np.zeros(3, np.float32))
    updates, state = tx.update(updates=grads, state=state, params=grads)
    assert state == 1
    assert same(updates["a"]["b"], np.full(2, -1.0))
    assert list(updates) == ["a", "c"]
    assert not hasattr(tx, "step")


def test_structures_in_structures_are_kept_and_have_paths() -> None:
    inner, seen = Stepper(), []
    grads = [{"b": np.ones((1, 1)), "a": (np.ones((1, 1)), None)}, OrderedDict(z=np.ones((1, 1)))]
    opt = ronde.DistributedOptimizer(inner, compression=lambda label, x: seen.append(label))
    opt.step(grads)
    assert inner.given == [grads]
    assert type(inner.given[0][1]) is OrderedDict
    assert seen == [(0, "a", 0), (0, "b"), (1, "z")]


# Attributes


def test_attributes_are_read_set_and_deleted_on_the_wrapped_optimizer() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    assert opt.rate == 0.5
    opt.rate = 0.25
    opt.momentum = 0.9
    assert (inner.rate, inner.momentum) == (0.25, 0.9)  # type: ignore[attr-defined]
    assert "momentum" in dir(opt)
    del opt.momentum
    assert not hasattr(inner, "momentum")
    assert opt.wrapped_optimizer is inner
    with pytest.raises(AttributeError, match="'Stepper' object has no attribute 'nothing'"):
        _ = opt.nothing


def test_a_replaced_method_is_the_one_that_is_called() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    opt.step = lambda grads: "replaced"  # as schedulers do to count steps
    assert opt.step([np.ones(1)]) == "replaced"


@pytest.mark.parametrize("name", ["communication_seconds", "wrapped_optimizer"])
def test_the_wrappers_own_attributes_are_read_only_and_collide_loudly(name: str) -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    with pytest.raises(AttributeError, match="read only"):
        setattr(opt, name, 1)
    with pytest.raises(AttributeError, match="read only"):
        delattr(opt, name)
    setattr(inner, name, 1)
    with pytest.raises(TypeError, match=f"uses itself: {name}"):
        ronde.DistributedOptimizer(inner)


def test_repr_shows_what_is_wrapped() -> None:
    text = repr(ronde.DistributedOptimizer(sgd, op=ronde.Sum, backward_passes_per_step=2))
    assert text == f"DistributedOptimizer({sgd!r}, op=ronde.Sum, backward_passes_per_step=2)"


def repickled(opt: Any) -> Any:
    return pickle.loads(pickle.dumps(opt))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, repickled])
def test_a_copy_goes_on_from_the_same_pass(duplicate: Callable[[Any], Any]) -> None:
    opt = ronde.DistributedOptimizer(Stepper(), backward_passes_per_step=3)
    opt.step([np.full(1, 1.0)])
    twin = duplicate(opt)
    assert (twin.wrapped_optimizer is opt.wrapped_optimizer) == (duplicate is copy.copy)
    for each, scale in ((opt, 1.0), (twin, 10.0)):
        assert each.step([np.full(1, scale)]) is None
        assert each.step([np.full(1, scale)]) == "stepped"
        assert each.given[-1] == [np.full(1, 1.0 + 2.0 * scale)]


def test_a_process_set_is_found_again_by_its_ranks(world: Any) -> None:
    mine = ronde.ProcessSet([0])
    mine._attach(1, global_process_set._member())
    world.sets[1] = (mine, None)
    data = pickle.dumps(ronde.DistributedOptimizer(Stepper(), process_set=mine))
    pickle.loads(data).step([np.ones(1)])
    world.sets.clear()
    with pytest.raises(ronde.RondeError, match=r"process set of ranks \[0\]"):
        pickle.loads(data)


# Errors


def from_module(module: str, **members: Any) -> Any:
    """An object of a class that seems to come from `module`, by a base class."""
    base = type("Base", (Stepper,), {"__module__": module})
    return type("Mine", (base,), members)()


@pytest.mark.parametrize(
    ("unfit", "message"),
    [
        (
            from_module("torch.optim.sgd"),
            r"ronde\.torch\.Dist.*grouped_allreduce_\(\[p\.grad for p in",
        ),
        (from_module("keras.src.optimizers.adam"), r"ronde\.keras\.DistributedOptimizer"),
        (from_module("tensorflow.python.keras"), "before apply_gradients"),
        (type("SGDClassifier", (), {"partial_fit": sgd})(), r"allreduce_\(model\.coef_\)"),
        (Stepper, "not the class Stepper"),
        (object(), r"step\(grads\), update\(.*init\(params\), or to be callable"),
        (None, "NoneType is not an optimizer"),
    ],
)
def test_what_cannot_be_wrapped_says_why(unfit: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ronde.DistributedOptimizer(unfit)


def test_a_wrapper_is_not_wrapped_again() -> None:
    opt = ronde.DistributedOptimizer(Stepper())
    with pytest.raises(TypeError, match="DistributedOptimizer already"):
        ronde.DistributedOptimizer(opt)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"op": "average"}, TypeError, "op must be one of"),
        ({"backward_passes_per_step": 0}, ValueError, "at least 1"),
        ({"backward_passes_per_step": 1.5}, TypeError, "whole number, not 1.5"),
        ({"process_set": [0]}, TypeError, "must be a ronde.ProcessSet"),
        ({"process_set": ronde.ProcessSet([0])}, ronde.RondeError, "not in use"),
        ({"prescale_factor": "much"}, TypeError, "prescale_factor must be a number, not 'much'"),
    ],
)
def test_wrong_options_raise(options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        ronde.DistributedOptimizer(Stepper(), **options)


def test_a_rank_outside_of_the_process_set_raises() -> None:
    others = ronde.ProcessSet([1])
    others._attach(1, None)
    with pytest.raises(ValueError, match="not a member"):
        ronde.DistributedOptimizer(Stepper(), process_set=others)


def test_ronde_must_be_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = ronde.DistributedOptimizer(Stepper())
    monkeypatch.setattr(context, "_world", None)
    with pytest.raises(ronde.RondeError, match="not initialised"):
        ronde.DistributedOptimizer(Stepper())
    with pytest.raises(ronde.RondeError, match="not initialised"):
        opt.step([np.ones(1)])


@pytest.mark.parametrize("grads", [(), (None,)])
def test_gradients_are_needed(grads: tuple[Any, ...]) -> None:
    for opt in (ronde.DistributedOptimizer(Stepper()), ronde.DistributedOptimizer(Updater())):
        update = getattr(opt, "step", None) or opt.update_params
        with pytest.raises(TypeError, match="gradients are"):
            update(*grads)


def test_what_is_no_array_is_refused_and_not_counted() -> None:
    inner = Stepper()
    opt = ronde.DistributedOptimizer(inner)
    with pytest.raises(TypeError, match=r"grads\[\(0, 1\)\]: an array is needed"):
        opt.step([[np.ones(1), "text"]])
    opt.step([np.ones(1)])
    assert len(inner.given) == 1
