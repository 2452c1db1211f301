"""ronde.optax.distributed on several ranks, as it is and in jax.jit."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
import ronde
from ranks import on_ranks

os.environ.setdefault("JAX_PLATFORMS", "cpu")

pytestmark = pytest.mark.frameworks
jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="Optax is not installed")
distributed = pytest.importorskip("ronde.optax").distributed


def parameters() -> dict[str, Any]:
    random = np.random.default_rng(3)
    layer = {"w": random.standard_normal((4, 3)), "b": random.standard_normal(3)}
    return jax.tree.map(
        lambda x: jax.numpy.asarray(x, "float32"), {"layers": [layer], "scale": 2.0, "none": None}
    )


def rows(step: int) -> Any:
    """Twelve rows, alike on all ranks."""
    return jax.random.normal(jax.random.PRNGKey(step), (12, 4))


def mine(x: Any) -> Any:
    return x[ronde.rank() :: ronde.size()]


def loss(params: Any, x: Any) -> Any:
    layer = params["layers"][0]
    return jax.numpy.mean((params["scale"] * (x @ layer["w"] + layer["b"])) ** 2)


def trained(tx: Any, share: Any, compiled: bool, steps: int = 4) -> tuple[Any, Any]:
    def step(params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if compiled else step
    params = parameters()
    state = tx.init(params)
    for i in range(steps):
        params, state = step(params, state, share(rows(i)))
    return params, state


def require_same(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def require_same_on_all_ranks(params: Any) -> None:
    leaves = ronde.allgather_object([np.asarray(x).tolist() for x in jax.tree.leaves(params)])
    assert all(each == leaves[0] for each in leaves)


MAKERS: dict[str, Any] = {
    "adam": lambda: optax.adam(0.1),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
    "adamw": lambda: optax.adamw(0.1),
}


@on_ranks(1, 2, 3)
def test_training_is_that_of_one_process_on_the_same_batches() -> None:
    for make in MAKERS.values():
        alone, _ = trained(make(), lambda x: x, compiled=True)
        for compiled in (False, True):
            params, _ = trained(distributed(make()), mine, compiled)
            require_same(params, alone)
            require_same_on_all_ranks(params)


@on_ranks(2)
def test_accumulated_passes_are_those_of_one_process() -> None:
    alone, _ = trained(optax.MultiSteps(optax.adam(0.1), 2), lambda x: x, compiled=True)
    for compiled in (False, True):
        params, _ = trained(optax.MultiSteps(distributed(optax.adam(0.1)), 2), mine, compiled)
        require_same(params, alone)
    require_same_on_all_ranks(params)


@on_ranks(2)
def test_calls_of_the_main_thread_may_come_at_the_same_time() -> None:
    tx = distributed(optax.sgd(0.1))

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    params = parameters()
    state = tx.init(params)
    for i in range(20):
        params, state = step(params, state, mine(rows(i)))  # which goes on in a thread of JAX
        assert ronde.allgather_object(i) == [i, i]
    require_same_on_all_ranks(params)


@on_ranks(2)
def test_bfloat16_and_masked_leaves() -> None:
    grads = {
        "half": jax.numpy.full((2, 2), 1.0 + 2 * ronde.rank(), "bfloat16"),
        "masked": optax.MaskedNode(),
        "none": None,
    }
    tx = distributed(optax.identity())
    for update in (tx.update, jax.jit(tx.update)):
        done, _ = update(grads, tx.init(grads))
        require_same(done, {**grads, "half": jax.numpy.full((2, 2), 2.0, "bfloat16")}, 0.0)


@on_ranks(2)
def test_operations_factors_and_compression() -> None:
    grads = {"a": jax.numpy.full((4, 4), 1.0 + ronde.rank())}
    done, _ = distributed(optax.identity(), op=ronde.Sum, postscale_factor=2.0).update(grads, ())
    require_same(done, {"a": jax.numpy.full((4, 4), 6.0)})
    tx = distributed(optax.identity(), compression={"['a']": "int8"}, name="compressed")
    done, _ = jax.jit(tx.update)(grads, tx.init(grads))
    require_same(done, {"a": jax.numpy.full((4, 4), 1.5)}, 0.02)
    require_same_on_all_ranks(done)


@on_ranks(2)
def test_large_arrays() -> None:
    grads = [jax.numpy.full((1 << 20,), float(i + ronde.rank())) for i in range(4)]
    tx = distributed(optax.identity())
    done, _ = jax.jit(tx.update)(grads, tx.init(grads))
    assert [float(each[-1]) for each in done] == [i + 0.5 for i in range(4)]


@on_ranks(2)
def test_gradients_that_differ_are_an_error_on_all_ranks() -> None:
    tx = distributed(optax.identity())
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(Exception, match="the ranks made different calls"):
            jax.block_until_ready(update({"a": jax.numpy.ones(2 + ronde.rank())}, ()))


@on_ranks(1)
def test_further_arguments_are_passed_on() -> None:
    seen: list[Any] = []

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen.append(extra)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    distributed(inner).update([jax.numpy.ones(2)], (), None, value=3)
    distributed(optax.sgd(1.0)).update([jax.numpy.ones(2)], optax.sgd(1.0).init([1.0]), value=3)
    distributed(optax.sgd(1.0)).update([], optax.sgd(1.0).init([]))
    assert seen == [{"value": 3}]


@on_ranks(1)
def test_what_is_no_transformation_is_refused() -> None:
    with pytest.raises(TypeError, match="gradient transformation"):
        distributed(optax.adam)
    with pytest.raises(TypeError, match="op must be"):
        distributed(optax.adam(0.1), op="sum")


def test_without_optax_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ronde.optax", raising=False)
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match="pip install optax"):
        import ronde.optax  # noqa: F401
