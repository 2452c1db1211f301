"""DistributedOptimizer around what Optax has, with arrays of JAX. (A stand-in is in tests/optimizer.)"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ronde

optax = pytest.importorskip("optax", reason="Optax is not installed")
jax = pytest.importorskip("jax", reason="JAX is not installed")

pytestmark = pytest.mark.frameworks


@pytest.fixture(autouse=True, scope="module")
def job() -> None:
    ronde.init()


def parameters() -> dict[str, Any]:
    random = np.random.default_rng(3)
    layer = {"w": random.standard_normal((4, 3)), "b": random.standard_normal(3)}
    return jax.tree.map(
        lambda x: jax.numpy.asarray(x, "float32"), {"layers": [layer], "scale": 2.0}
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.adam(0.1),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
        lambda: optax.adamw(0.1),  # which needs the parameters
    ],
    ids=["adam", "chain", "adamw"],
)
def test_a_wrapped_transformation_updates_as_without_ronde(make: Any) -> None:
    alone, wrapped = make(), ronde.DistributedOptimizer(make())
    plain = shared = parameters()
    states = [alone.init(plain), wrapped.init(shared)]
    for step in range(3):
        grads = jax.tree.map(lambda x, step=step: x * (step + 1), plain)
        updates, states[0] = alone.update(grads, states[0], plain)
        plain = optax.apply_updates(plain, updates)
        updates, states[1] = wrapped.update(grads, states[1], shared)
        shared = optax.apply_updates(shared, updates)
    assert jax.tree.structure(plain) == jax.tree.structure(shared)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(shared), strict=True):
        assert isinstance(b, jax.Array)
        np.testing.assert_array_equal(a, b)


def test_passes_before_the_last_leave_parameters_and_state() -> None:
    params = parameters()
    tx = ronde.DistributedOptimizer(optax.sgd(1.0), backward_passes_per_step=2)
    state = tx.init(params)
    updates, after = tx.update(params, state, params)
    assert after is state
    same = optax.apply_updates(params, updates)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    updates, _ = tx.update(params, state, params)
    np.testing.assert_array_equal(updates["layers"][0]["b"], -2 * params["layers"][0]["b"])


def test_while_jax_traces_it_says_what_to_do() -> None:
    tx = ronde.DistributedOptimizer(optax.sgd(1.0))
    params = parameters()
    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda grads: tx.update(grads, tx.init(params), params))(params)


def test_data_classes_that_jax_knows_are_structures() -> None:
    node = jax.tree_util.Partial(abs, np.ones((2, 2)), w=np.ones(3))
    inner: list[Any] = []
    ronde.DistributedOptimizer(lambda params, grads: inner.append(grads))(None, node)
    assert isinstance(inner[0], jax.tree_util.Partial)
    np.testing.assert_array_equal(inner[0].args[0], np.ones((2, 2)))
