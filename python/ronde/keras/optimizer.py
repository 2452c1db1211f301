"""Optimizers of Keras that see the gradients of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras

from .._gradients import Reducer, reducer
from ..process_set import ProcessSet, global_process_set
from ..reductions import Average, Op

__all__ = ["DistributedOptimizer"]

T = TypeVar("T")
Arrays = dict[str, Any]  # by the paths of their variables


def DistributedOptimizer(
    optimizer: T,
    *,
    compression: Any = None,
    op: Op = Average,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
    name: str | None = None,
) -> T:
    """Make an optimizer reduce its gradients over the ranks before it applies them, and return it.

    It stays the same object of the same class, whose `apply` does more. So `fit`, schedules, clipping,
    `gradient_accumulation_steps` and loss scaling go on as before: with accumulation each pass is reduced,
    and the accumulated gradients are those of all ranks. What is saved of it loads as the plain optimizer,
    with or without Ronde, and a copy is one; wrap it again before training goes on.

    Wrap a `LossScaleOptimizer` from the outside, not what is in it: ranks would skip different steps.

        model.compile(ronde.keras.DistributedOptimizer(keras.optimizers.Adam(1e-3)), "mse")

    Args:
        optimizer: an optimizer of Keras 3.
        compression: as for `ronde.DistributedOptimizer`; keys are paths of variables, as
            `"dense/kernel"`.
        op: as for `ronde.allreduce`.
        prescale_factor: as for `ronde.allreduce`.
        postscale_factor: as for `ronde.allreduce`.
        process_set: the ranks that take part; None for all.
        name: shown in errors, and compared between the ranks.

    Raises:
        TypeError: `optimizer` is none of Keras 3, or is distributed already.
        ValueError: this rank is not in `process_set`.
        RondeError: before `ronde.init()`.
        MismatchError: in a step, where shapes, dtypes or variables differ between the ranks.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(f"optimizer must be an optimizer of Keras 3, not {optimizer!r}")
    if "apply" in vars(optimizer):
        raise TypeError("this optimizer is distributed already")
    factors = prescale_factor, postscale_factor
    reduce = reducer(op, 1, factors, process_set, name or "keras", compression, asynchronous=True)
    methods = _Methods(optimizer, reduce)
    optimizer.apply, optimizer.stateless_apply = methods.apply, methods.stateless_apply
    return optimizer


class _Methods:
    """Those that an optimizer gets in place of its class's."""

    def __init__(self, optimizer: Any, reduce: Reducer) -> None:
        self._optimizer, self._reduce = optimizer, reduce
        self._apply, self._stateless_apply = optimizer.apply, optimizer.stateless_apply
        self._in_stateless_apply = False  # which may call `apply`

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        """The gradients of all ranks go to `apply` of the class."""
        if self._in_stateless_apply:
            return self._apply(grads, trainable_variables)
        variables = list(self._variables() if trainable_variables is None else trainable_variables)
        return self._apply(_reduced(self._reduce, list(grads), variables), variables)

    def stateless_apply(
        self, optimizer_variables: Any, grads: Sequence[Any], trainable_variables: Any
    ) -> Any:
        """The same for what `fit` calls on JAX."""
        reduced = _reduced(self._reduce, list(grads), self._variables())
        self._in_stateless_apply = True
        try:
            return self._stateless_apply(optimizer_variables, reduced, trainable_variables)
        finally:
            self._in_stateless_apply = False

    def _variables(self) -> list[Any]:
        inner = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        return list(inner._trainable_variables)


def _reduced(reduce: Reducer, grads: list[Any], variables: list[Any]) -> list[Any]:
    labels = [getattr(each, "path", str(i)) for i, each in enumerate(variables)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({i})" for i, label in enumerate(labels)]
    arrays = {label: grad for label, grad in zip(labels, grads, strict=True) if grad is not None}
    done = _BACKENDS[keras.backend.backend()](reduce, arrays)
    return [done.get(label) for label in labels]


def _on_torch(reduce: Reducer, arrays: Arrays) -> Arrays:
    done: Arrays = reduce.reduce(arrays)
    return done


def _on_jax(reduce: Reducer, arrays: Arrays) -> Arrays:
    from .._jax import reduced

    return reduced(reduce, arrays)


def _on_tensorflow(reduce: Reducer, arrays: Arrays) -> Arrays:
    import tensorflow as tf

    def on_host(*values: Any) -> list[Any]:
        done: Arrays = reduce.reduce(dict(zip(arrays, values, strict=True)))
        return list(done.values())

    dense = [tf.convert_to_tensor(each) for each in arrays.values()]  # embeddings give slices
    # Of one tensor it makes no list.
    done = tf.nest.flatten(tf.numpy_function(on_host, dense, [each.dtype for each in dense]))
    for tensor, before in zip(done, dense, strict=True):
        tensor.set_shape(before.shape)
    return dict(zip(arrays, done, strict=True))


_BACKENDS: dict[str, Callable[[Reducer, Arrays], Arrays]] = {
    "torch": _on_torch,
    "jax": _on_jax,
    "tensorflow": _on_tensorflow,
}
