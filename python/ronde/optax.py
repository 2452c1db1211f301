"""Gradient transformations of Optax that see the gradients of all ranks, in `jax.jit` too."""

from __future__ import annotations

from typing import Any

try:
    import jax
    import optax
except ImportError as error:
    raise ImportError(f"ronde.optax needs JAX and Optax: pip install optax ({error})") from error

from ._gradients import reducer
from ._jax import reduced
from .process_set import ProcessSet, global_process_set
from .reductions import Average, Op

__all__ = ["distributed"]


def distributed(
    tx: Any,
    *,
    compression: Any = None,
    op: Op = Average,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
    name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make a gradient transformation that reduces gradients over the ranks, and then applies `tx`.

    It can be called as it is and in functions that `jax.jit` compiles, on one device of each rank.
    All ranks call it with gradients of the same structure, shapes and dtypes. What is None, or masked by
    `optax.masked`, stays away. Under `optax.MultiSteps` every pass is reduced, as that computes an update
    in each.

        tx = ronde.optax.distributed(optax.adamw(1e-3))

        @jax.jit
        def step(params, state, batch):
            grads = jax.grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

    Args:
        tx: a gradient transformation of Optax.
        compression: as for `ronde.DistributedOptimizer`; keys are those of `jax.tree_util.keystr`,
            as `"['dense']['kernel']"`.
        op: as for `ronde.allreduce`.
        prescale_factor: as for `ronde.allreduce`.
        postscale_factor: as for `ronde.allreduce`.
        process_set: the ranks that take part; None for all.
        name: shown in errors, and compared between the ranks. Transformations that are at work at the
            same time need different ones.

    Raises:
        TypeError: `tx` is none, or `op` is no operation.
        ValueError: this rank is not in `process_set`.
        RondeError: before `ronde.init()`. In a compiled function JAX puts errors of an update into one
            of its own.
    """
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(f"tx must be a gradient transformation of Optax, not {tx!r}")
    inner = optax.with_extra_args_support(tx)
    factors = prescale_factor, postscale_factor
    reduce = reducer(op, 1, factors, process_set, name or "optax", compression, asynchronous=True)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        found, structure = jax.tree_util.tree_flatten_with_path(updates)
        labels = [jax.tree_util.keystr(path) for path, _ in found]
        done = reduced(reduce, dict(zip(labels, (leaf for _, leaf in found), strict=True)))
        updates = structure.unflatten([done[label] for label in labels])
        return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)
