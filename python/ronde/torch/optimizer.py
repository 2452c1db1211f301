"""`DistributedOptimizer`: an optimizer of torch whose gradients are those of all ranks."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from .._calls import set_of
from .._gradients import passes_of
from ..process_set import ProcessSet, global_process_set
from ..reductions import Adasum, Average, Op, Sum
from ._adasum import Deltas
from ._carriers import Reduction, carrier_of
from ._checks import FLOATING
from ._peers import peers_of
from ._reducer import Reducer
from ._way import Way
from .compression import Compression

__all__ = ["DistributedOptimizer"]


def DistributedOptimizer(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
    compression: Any = Compression.none,
    backward_passes_per_step: int = 1,
    op: Op = Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | list[list[torch.Tensor]] | None = None,
    sparse_as_dense: bool = False,
    process_set: ProcessSet | None = global_process_set,
) -> Any:
    """Make `optimizer` use the gradients of all ranks, and return it.

    `loss.backward()` reduces gradients while it computes others, and they are final when it returns: clip
    them, unscale them, step. With `backward_passes_per_step=k` that holds for the k-th call; the passes are
    added up on each rank before, and the sum is reduced. `step()` reduces what is left over. The loss that
    a closure returns is averaged over the ranks, so that a line search decides alike.

    The object stays the same, of a class derived from its own: schedulers, hooks, `state_dict`, pickling
    and copies work as before. A copy is an ordinary optimizer. In addition it has

    - `synchronize()`: reduce what is left over, and allow `zero_grad()` without a step;
    - `skip_synchronize()`: a context in which `step()` reduces nothing;
    - `set_backward_passes_per_step(k)`.

    A parameter without gradient on this rank contributes zeros where another rank has one; where none has,
    `.grad` stays None. Parameters may be frozen, unfrozen, and added by `add_param_group`, on all ranks
    alike. Gradients are reduced in buckets of up to `RONDE_FUSION_BYTES`, and of 4 MiB between machines.
    Inside a machine they are reduced where they are. Between machines, and on GPUs, each `.grad` is a
    view of such a bucket, which the next pass writes to: clone what you keep. `detach_` cannot be called
    on it. Several optimizers may have gradients of one loss, if all ranks make them in one order.

    With `op=Adasum` each rank steps by its own gradients, and the changes of the parameters are combined.
    `backward_passes_per_step`, `num_groups`, `groups` and `sparse_as_dense` have no effect then, passes are
    not counted, and `zero_grad()` is always allowed. A `GradScaler` would skip steps on some ranks only.

        optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1))

    Args:
        optimizer: an optimizer of torch, with parameters of float16, bfloat16, float32 or float64.
        named_parameters: names of all its parameters, as `model.named_parameters()`, for errors and for
            what compressors remember; numbers unless given. Each name occurs once.
        compression: one of `Compression`, an object or class with `compress` and `decompress`; or one of
            `ronde.compression`, its name, a dictionary from the names of parameters or a function, as of
            `ronde.DistributedOptimizer`. To save what is left out, pass a
            `ronde.compression.ErrorFeedback` and save its `state_dict()`.
        backward_passes_per_step: passes to a reduction, which is of their sum. A pass more of a parameter
            before `step()` is an AssertionError, so passes of several losses of a step count too.
        op: Average, Sum or Adasum.
        gradient_predivide_factor: of an average: gradients are divided by it before the sum, and by
            size over it after it.
        num_groups: the same as a number of `groups`.
        groups: parameters that share a bucket: a number of groups of equal size, or lists of parameters;
            the others are on their own.
        sparse_as_dense: make sparse gradients dense. Otherwise their indices and values are gathered.
        process_set: the ranks that take part. Other ranks step by their own gradients.

    Raises:
        TypeError: `optimizer` is none of torch, or is distributed already.
        ValueError: names are missing or occur twice; an argument is out of its range.
        RondeError: before `init`.
        MismatchError: in the first pass, on all ranks, where their parameters differ.
    """
    if isinstance(optimizer, _Distributed):
        raise TypeError("this optimizer is a DistributedOptimizer already")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be one of torch, as torch.optim.SGD(...), not {type(optimizer).__name__}"
        )
    if op not in (Average, Sum, Adasum):
        raise ValueError(f"op must be Average, Sum or Adasum, not {op!r}")
    if gradient_predivide_factor != 1.0 and op != Average:
        raise ValueError("gradient_predivide_factor not supported with op != Average")
    members = set_of(process_set)
    names = _Names(optimizer, named_parameters)
    found = list(names.of(optimizer.param_groups, 0))
    grouped = _groups(groups or num_groups, [param for _, param in found])
    peers = peers_of(members)
    number = peers.number()
    name = f"DistributedOptimizer {number}" if number else "DistributedOptimizer"
    factors = 1.0 / gradient_predivide_factor, float(gradient_predivide_factor)
    reduction = Reduction(op, *factors, members)
    carrier = carrier_of(compression)
    passes = passes_of(backward_passes_per_step)
    members._require()
    way = Way()
    if members.included():
        if op == Adasum:
            way = Deltas(name, reduction, carrier)
        else:
            way = Reducer(name, peers, reduction, carrier, passes, sparse_as_dense)
            peers.enter(number, way)
    way.add((label, param, grouped.get(id(param))) for label, param in found)
    _become_distributed(optimizer, _State(way, names))
    return optimizer


class _State:
    """What a distributed optimizer has besides its own."""

    def __init__(self, way: Way, names: _Names) -> None:
        self.way = way
        self.names = names
        self.synchronizes = True  # in `step`
        self.is_synchronized = False  # by hand
        self.has_warned = False
        self._depth = 0  # of steps within steps, as of a class whose step calls that of its base
        self._outer: FrameType | None = None  # where the outermost is called

    def reset(self) -> None:
        """Begins anew after an error, on all ranks."""
        self.is_synchronized = False
        self.way.reset()

    def before_step(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A hook of the step, which torch calls for each class whose step is called in it."""
        caller = sys._getframe(1)
        if self._depth and _is_below(caller, self._outer):
            self._depth += 1
            return args, kwargs
        self._depth, self._outer = 1, caller  # the one before may have raised an error
        if self.synchronizes:
            if self.is_synchronized and not self.has_warned:
                self.has_warned = True
                warnings.warn(
                    "optimizer.step() called without optimizer.skip_synchronize() context after "
                    "optimizer.synchronize(). Gradients are final when backward() returns: neither is "
                    "needed",
                    stacklevel=4,
                )
            self.way.finish()
        self.is_synchronized = False
        self.way.before_step()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            return args, kwargs
        mean = _Mean(closure, self.way)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": mean}
        return (args[0], mean, *args[2:]), kwargs

    def after_step(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._outer = None
            self.way.after_step()


def _is_below(frame: FrameType | None, outer: FrameType | None) -> bool:
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


class _Mean:
    """A closure whose loss is that of all ranks."""

    def __init__(self, closure: Callable[[], Any], way: Way) -> None:
        self.closure = closure
        self.way = way

    def __call__(self) -> Any:
        loss = self.closure()
        return None if loss is None else self.way.mean_loss(loss)


class _Distributed:
    """What a distributed optimizer does otherwise. `step` stays as it is: what is to be done before it and
    after it are hooks of the optimizer, which a scheduler that has replaced `step` calls as well."""

    _ronde: _State

    def synchronize(self) -> None:
        """Reduce what `backward` has left over. `zero_grad()` is allowed from then on."""
        self._ronde.way.synchronize()
        self._ronde.is_synchronized = True

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Within this context `step()` reduces nothing."""
        self._ronde.synchronizes = False
        try:
            yield
        finally:
            self._ronde.synchronizes = True

    def set_backward_passes_per_step(self, passes: int) -> None:
        """From now on gradients of so many passes are added up before they are reduced."""
        self._ronde.way.passes_per_step = passes_of(passes)

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """As of the optimizer. `AssertionError` between `backward()` and `step()`."""
        self._ronde.way.before_zero_grad()
        self._ronde.is_synchronized = False
        super().zero_grad(*args, **kwargs)  # type: ignore[misc]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of the optimizer, on all ranks alike."""
        super().add_param_group(param_group)  # type: ignore[misc]
        groups = self.param_groups  # type: ignore[attr-defined]
        names = self._ronde.names.of(groups[-1:], len(groups) - 1)
        self._ronde.way.add((name, param, None) for name, param in names)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """A copy is an ordinary optimizer: hooks of parameters cannot be copied."""
        reduced: Any = super().__reduce_ex__(protocol)
        _, _, state, *rest = reduced
        plain = type(self).__mro__[2]
        if isinstance(state, dict):
            state = {key: value for key, value in state.items() if key != "_ronde"}
        return (plain.__new__, (plain,), state, *rest)


def _become_distributed(optimizer: torch.optim.Optimizer, state: _State) -> None:
    plain = type(optimizer)
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
    names["__doc__"] = plain.__doc__ or ""
    optimizer.__class__ = type(plain.__name__, (_Distributed, plain), names)
    optimizer.__dict__["_ronde"] = state
    optimizer.register_step_pre_hook(state.before_step)
    optimizer.register_step_post_hook(state.after_step)


class _Names:
    """The names of parameters: those that were given, or the numbers of group and parameter."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named: Iterable[tuple[str, torch.Tensor]] | None,
    ) -> None:
        self.given = None if named is None else _checked(named)
        if self.given is None:
            return
        missing = [
            f"parameter {i} of group {j}, {list(param.shape)}"
            for j, group in enumerate(optimizer.param_groups)
            for i, param in enumerate(group["params"])
            if id(param) not in self.given
        ]
        if missing:
            raise ValueError(
                "named_parameters was specified, but one or more model parameters were not named: "
                + "; ".join(missing)
            )

    def of(self, groups: list[dict[str, Any]], first: int) -> Iterator[tuple[str, torch.Tensor]]:
        """The parameters of groups, of which the first has this number, with their names."""
        for number, group in enumerate(groups, first):
            names = group.get("param_names") or [
                f"{number}.{i}" for i in range(len(group["params"]))
            ]
            for name, param in zip(names, group["params"], strict=True):
                if param.dtype not in FLOATING:
                    raise ValueError(
                        f"parameter {name} is of {param.dtype}; gradients of float16, bfloat16, float32 and "
                        "float64 can be reduced"
                    )
                yield (self.given or {}).get(id(param), name), param


def _checked(named: Iterable[tuple[str, torch.Tensor]]) -> dict[int, str]:
    pairs = list(named)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError(
            "named_parameters should be a sequence of tuples (name, parameter), usually produced by "
            "model.named_parameters()"
        )
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(
            f"parameter names in named_parameters must be unique. Found duplicates: {', '.join(twice)}"
        )
    return {id(param): name for name, param in pairs}


def _groups(groups: int | list[list[torch.Tensor]], params: list[torch.Tensor]) -> dict[int, int]:
    """The number of the group of each parameter, by its id."""
    if isinstance(groups, list) and all(isinstance(group, (list, tuple)) for group in groups):
        lists: list[Any] = groups
    elif isinstance(groups, int) and groups >= 0:
        count = min(groups, len(params))
        lists = [
            params[i * len(params) // count : (i + 1) * len(params) // count] for i in range(count)
        ]
    else:
        raise ValueError(
            "groups should be a non-negative integer or a list of list of torch.Tensor, not "
            f"{groups!r}"
        )
    numbers: dict[int, int] = {}
    for number, group in enumerate(lists):
        for param in group:
            if numbers.setdefault(id(param), number) != number:
                raise ValueError(
                    f"groups: a parameter is in groups {numbers[id(param)]} and {number}"
                )
    return numbers
