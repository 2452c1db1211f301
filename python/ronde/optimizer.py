"""An optimizer that averages gradients over the ranks before it updates.

    opt = ronde.DistributedOptimizer(AdamOptimizer(params))
    opt.update_params(params, grads)    # grads of this rank in, the same update on all ranks

The *wrapped* optimizer is what was given, and still does the update. A *kind* is a way of calling
an optimizer. Each kind has an adapter that offers that way alone, and `_KINDS` lists them.
`_gradients` has what happens to the gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._gradients import Reducer, reducer, zeros_like
from .process_set import ProcessSet, global_process_set
from .reductions import Average, Op

__all__ = ["DistributedOptimizer"]


def DistributedOptimizer(
    optimizer: Any,
    *,
    compression: Any = None,
    op: Op = Average,
    backward_passes_per_step: int = 1,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet | None = global_process_set,
    name: str | None = None,
) -> _Adapter:
    """Wrap `optimizer` so that it gets the gradients of all ranks, reduced by `op`.

    `optimizer` must have one of these; the first that it has counts:

    - `update_params(params, grads)`, like scikit-learn's `AdamOptimizer` and `SGDOptimizer`, or
      `update_params(grads)`, as in its older versions;
    - `step(grads)`;
    - `update(grads, state, params)` and `init(params)`, like the gradient transformations of Optax;
    - a call, `optimizer(params, grads)`.

    The wrapper is called in the same way, and in no other, with arrays and not while JAX traces a
    function. Further arguments are passed on. All other attributes, read, set or deleted, are those
    of the wrapped optimizer, which is `wrapped_optimizer`. `communication_seconds` is the time that
    this rank has spent in reductions, waiting for slower ranks included. Optimizers of torch and
    Keras do not take gradients as arguments: `ronde.torch` and `ronde.keras` have a
    `DistributedOptimizer` for each, and `ronde.optax.distributed` works while JAX traces. Estimators
    of scikit-learn cannot be wrapped; the `TypeError` says what to do instead.

    `grads` is a list, tuple or dictionary of arrays (of what `ronde.allreduce` takes), or one
    array, or such structures in each other (where JAX is imported, all that it knows). They are not
    modified: the wrapped optimizer gets new ones, in a structure of the same type. An entry may be
    None for a parameter without gradient, and must then be None on all ranks. Dictionary keys are
    sorted, and compared, by their `repr`.

    A wrapper can be copied and pickled, with the optimizer and the accumulated passes. If it was
    made for a process set other than the global one, there must be a set of the same ranks when it
    is unpickled.

        opt = ronde.DistributedOptimizer(AdamOptimizer(params))
        opt.update_params(params, grads)

    Args:
        optimizer: the optimizer to wrap.
        compression: one of `ronde.compression`, or its name, for arrays of two and more dimensions
            and a floating type (biases, norms and integers stay exact). Or a dictionary from keys
            (for a list: from numbers; for structures in each other: from tuples of these), where
            the rest stays exact; or a function of key and array. It computes in float32, and
            `RONDE_LOG=debug` shows what is done with each parameter. Compressors that are not
            unbiased get error feedback. To save and restore residuals, pass a
            `ronde.compression.ErrorFeedback` and use its `state_dict`.
        op: as for `ronde.allreduce`.
        backward_passes_per_step: with k, only every k-th call communicates and updates. The
            gradients of the calls before it are added up in copies, on this rank alone. As in
            Horovod, the *sum* of the k passes is averaged over the ranks. For the mean of the
            passes, scale the loss or pass `prescale_factor=1 / k`. A call that does not update
            returns None, for a wrapped callable its `params`, and for `update` zeros and its
            `state`.
        prescale_factor: as for `ronde.allreduce`.
        postscale_factor: as for `ronde.allreduce`.
        process_set: the ranks that take part; None for all.
        name: shown in errors, and compared between the ranks.

    Raises:
        TypeError: `optimizer` has none of the above, is wrapped already, or has an attribute with a
            name that the wrapper needs.
        ValueError: this rank is not in `process_set`, or `backward_passes_per_step` is less than 1.
        RondeError: before `ronde.init()`.
        MismatchError: in an update, where shapes, dtypes, keys or entries that are None differ
            between the ranks.
    """
    adapter = _adapter(optimizer)
    factors = prescale_factor, postscale_factor
    return adapter(
        optimizer, reducer(op, backward_passes_per_step, factors, process_set, name, compression)
    )


class _Adapter:
    """What all kinds have in common: everything but the update is the wrapped optimizer's."""

    __slots__ = ("__weakref__", "_ronde_reducer", "_ronde_wrapped")
    _ronde_wrapped: Any
    _ronde_reducer: Reducer

    if TYPE_CHECKING:  # what only some kinds have

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __init__(self, optimizer: Any, reducer: Reducer) -> None:
        object.__setattr__(self, "_ronde_wrapped", optimizer)
        object.__setattr__(self, "_ronde_reducer", reducer)

    @property
    def wrapped_optimizer(self) -> Any:
        """The optimizer that was given."""
        return self._ronde_wrapped

    @property
    def communication_seconds(self) -> float:
        """The time in reductions since the wrapper was made, waiting for ranks included."""
        return self._ronde_reducer.seconds

    def ready(self, label: Any, gradient: Any) -> None:
        """Begin the reduction of one gradient, while the backward pass computes others.

        The update then needs the same array in `grads`, unchanged, and finds it reduced. Gradients
        that were not ready are reduced by the update itself. All ranks begin with that in the
        same step: from then on every rank may have other gradients ready, or none. Each array
        travels by itself then, also where it is compressed; small exact ones are fused. Passes that
        do not update have nothing ready. Reductions move best where MPI allows several threads
        (`MPI_THREAD_MULTIPLE`, as mpi4py asks for).

            hidden = ...; opt.ready(2, hidden)     # travels while the first layer is computed
            first = ...
            opt.update_params(params, [first, bias, hidden])

        Args:
            label: the key of the gradient in `grads`, or its number; for structures in each other
                a tuple of these.
            gradient: the array.

        Raises:
            ValueError: it has been ready in this step.
        """
        self._ronde_reducer.ready(label, gradient)

    def discard_ready(self) -> None:
        """Forget the gradients that are ready, where a step is skipped. All ranks must call it."""
        self._ronde_reducer.early.discard()

    def __getattr__(self, name: str) -> Any:
        # `copy` and others look for special methods on instances: those must be the wrapper's.
        if name in _OWN_NAMES or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"a DistributedOptimizer has no {name!r}", name=name, obj=self)
        value = getattr(self._ronde_wrapped, name)
        if name in _KINDS and _offers(self._ronde_wrapped, name):
            raise AttributeError(
                f"{name!r} of {_type_name(self._ronde_wrapped)} would update without the gradients "
                "of other ranks",
                name=name,
                obj=self,
            )
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN_NAMES:
            raise AttributeError(f"{name!r} of a DistributedOptimizer is read only")
        setattr(self._ronde_wrapped, name, value)

    def __delattr__(self, name: str) -> None:
        if name in _OWN_NAMES:
            raise AttributeError(f"{name!r} of a DistributedOptimizer is read only")
        delattr(self._ronde_wrapped, name)

    def __dir__(self) -> list[str]:
        wrapped = self._ronde_wrapped
        hidden = {name for name in _KINDS if _offers(wrapped, name)}
        return sorted(set(dir(wrapped)) - hidden | set(object.__dir__(self)))

    def __repr__(self) -> str:
        reducer = self._ronde_reducer
        return (
            f"DistributedOptimizer({self._ronde_wrapped!r}, op={reducer.op!r}, "
            f"backward_passes_per_step={reducer.passes_per_step})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy counts its passes for itself.
        return type(self), (self._ronde_wrapped, copy.copy(self._ronde_reducer))


_OWN_NAMES = frozenset(name for name in vars(_Adapter) if not name.startswith("__"))


class _UpdateParams(_Adapter):
    """`update_params(params, grads)`, or `update_params(grads)`."""

    __slots__ = ()

    def update_params(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped `update_params`, with reduced gradients; None if it was not called."""
        return self._ronde_reducer.update(
            self._ronde_wrapped.update_params, min(1, len(args) - 1), args, kwargs
        )


class _Step(_Adapter):
    """`step(grads)`."""

    __slots__ = ()

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped `step`, with reduced gradients; None if it was not called."""
        return self._ronde_reducer.update(self._ronde_wrapped.step, 0, args, kwargs)


class _Callable(_Adapter):
    """`optimizer(params, grads)`."""

    __slots__ = ()

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> Any:
        """The wrapped callable, with reduced gradients; `params` if it was not called."""
        # `params = opt(params, grads)` is how functions that return new parameters are used.
        return self._ronde_reducer.update(
            self._ronde_wrapped, 1, (params, *args), kwargs, otherwise=params
        )


class _Transformation(_Adapter):
    """`update(grads, state, params)` and `init(params)`."""

    __slots__ = ()

    def update(self, updates: Any, state: Any, *further: Any, **named: Any) -> Any:
        """The wrapped `update`, with reduced gradients; zeros and `state` if it was not called."""
        reduced = self._ronde_reducer.reduce(updates)
        if reduced is None:
            return zeros_like(updates), state
        return self._ronde_wrapped.update(reduced, state, *further, **named)


_KINDS: dict[str, type[_Adapter]] = {
    "update_params": _UpdateParams,
    "step": _Step,
    "update": _Transformation,
    "__call__": _Callable,
}
"""The adapter for what offers a method of this name. The order is the precedence."""


def _adapter(optimizer: Any) -> type[_Adapter]:
    """The adapter class for this optimizer."""
    if isinstance(optimizer, _Adapter):
        raise TypeError("this optimizer is a DistributedOptimizer already")
    if isinstance(optimizer, type):
        raise TypeError(f"an optimizer is needed, not the class {optimizer.__name__}")
    for recognises, reason in _REFUSED:
        if recognises(optimizer):
            raise TypeError(f"{_type_name(optimizer)} cannot be wrapped: {reason}")
    for method, adapter in _KINDS.items():
        if _offers(optimizer, method):
            _check_names(optimizer)
            return adapter
    raise TypeError(
        f"{_type_name(optimizer)} is not an optimizer that Ronde knows how to call: it needs "
        "update_params(params, grads), step(grads), update(grads, state, params) with init(params), or to be "
        "callable with (params, grads)"
    )


def _offers(optimizer: Any, method: str) -> bool:
    # Many objects have an `update` that means something else.
    needed = ("init", "update") if method == "update" else (method,)
    return all(callable(getattr(optimizer, name, None)) for name in needed)


def _check_names(optimizer: Any) -> None:
    taken = sorted(name for name in _OWN_NAMES if hasattr(optimizer, name))
    if taken:
        raise TypeError(
            f"{_type_name(optimizer)} has attributes whose names a DistributedOptimizer "
            f"uses itself: {', '.join(taken)}"
        )


def _comes_from(*packages: str) -> Callable[[Any], bool]:
    """Whether an object's class or one of its bases was defined in one of the packages."""
    return lambda obj: any(
        base.__module__.partition(".")[0] in packages for base in type(obj).__mro__
    )


_REFUSED: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        _comes_from("torch"),
        "its step takes the gradients from the parameters. Use ronde.torch.DistributedOptimizer, or "
        "average them before it: ronde.grouped_allreduce_([p.grad for p in model.parameters() if p.grad "
        "is not None])",
    ),
    (
        _comes_from("keras"),
        "it takes gradients together with variables. Use ronde.keras.DistributedOptimizer",
    ),
    (
        _comes_from("tf_keras", "tensorflow"),
        "it takes gradients together with variables. Use an optimizer of Keras 3 with "
        "ronde.keras.DistributedOptimizer, or average them before apply_gradients: "
        "ronde.grouped_allreduce([g.numpy() for g in gradients])",
    ),
    (
        lambda obj: callable(getattr(obj, "partial_fit", None)),
        "its partial_fit computes gradients and applies them in one, so that they cannot be averaged in "
        "between. Train by gradients of your own with an optimizer of scikit-learn, as examples/train.py "
        "does, or average the parameters after each partial_fit: ronde.allreduce_(model.coef_)",
    ),
)
"""Optimizers that would seem to fit a kind, but mean something else by it, with the reason."""


def _type_name(obj: Any) -> str:
    return type(obj).__name__
