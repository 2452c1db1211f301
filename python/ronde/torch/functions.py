"""What all ranks begin with: parameters, the state of an optimizer, objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .. import _core, context
from .._calls import root_of
from ..errors import RondeError
from ..objects import allgather_by, broadcast_by
from ..process_set import ProcessSet
from . import _submit
from ._checks import communicator_in, require_initialized, require_tensor
from ._handles import grouped
from .process_sets import global_process_set

__all__ = [
    "allgather_object",
    "broadcast_object",
    "broadcast_object_fn",
    "broadcast_optimizer_state",
    "broadcast_parameters",
]

T = TypeVar("T")


def broadcast_parameters(
    params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], root_rank: int
) -> None:
    """Give all ranks the parameters of `root_rank`, in place.

    Args:
        params: `model.state_dict()`, `model.named_parameters()`, other names and tensors, or tensors
            alone, whose names are their positions. Names, shapes and dtypes must be the same on all
            ranks.
        root_rank: a rank of the job.

    Raises:
        ValueError: what is given are no tensors, two have one name, or before `init`.
        HorovodInternalError: names, shapes or dtypes differ between the ranks.
    """
    named = _named(params)
    listed = (f"{name!r}: {x.dtype}{list(x.shape)}" for name, x in sorted(named.items()))
    _agree("broadcast_parameters", root_rank, f"{len(named)} parameters: {', '.join(listed)}")
    _broadcast_all(named, root_rank)


def _named(params: Any) -> dict[str, Tensor]:
    if isinstance(params, Mapping):
        params = params.items()
    plain = isinstance(params, Tensor) or not isinstance(params, Iterable)
    pairs = [params] if plain else list(params)
    if not plain and not any(isinstance(item, tuple) for item in pairs):
        pairs = [(str(i), tensor) for i, tensor in enumerate(pairs)]
    if not all(isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) for x in pairs):
        raise ValueError(
            "params must be a dictionary of tensors, pairs of names and tensors, as of "
            f"model.named_parameters(), or a list of tensors, not {type(params).__name__}"
        )
    named: dict[str, Tensor] = {}
    for name, tensor in pairs:
        require_tensor(tensor, f"params[{name!r}]")
        if named.setdefault(name, tensor) is not tensor:
            raise ValueError(f"params: two tensors have the name {name!r}")
    return named


def _agree(kind: str, root_rank: int, detail: str) -> None:
    """Raises on all ranks if they have not come to the same."""
    communicator = communicator_in(global_process_set)
    root_of(root_rank, global_process_set)
    call = _core.Call(kind, root=root_rank, detail=detail, needs_all=True)
    context.world().engine.barrier(communicator, call=call).wait()


def _broadcast_all(named: Mapping[str, Tensor], root_rank: int) -> None:
    calls = [
        _submit.broadcast(tensor, True, root_rank, f"parameter {name}", global_process_set)
        for name, tensor in named.items()
    ]
    grouped(calls).wait()


class _Sent(NamedTuple):
    """Stands for a tensor, in an object that is sent."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str  # "cpu", "cuda"


def broadcast_optimizer_state(
    optimizer: torch.optim.Optimizer, root_rank: int, model: Any = None
) -> None:
    """Give the optimizers of all ranks the state and the options of that of `root_rank`.

    It works for all optimizers of `torch.optim`, before the first step or after, and whatever state the
    others have. No step is made.

    Args:
        optimizer: one of as many parameters on all ranks. Where it is on GPUs the state is, too.
        root_rank: a rank of the job.
        model: without meaning; Horovod has it.

    Raises:
        ValueError: this is no optimizer, or before `init`.
        HorovodInternalError: the optimizers of the ranks have other classes or numbers of parameters, the
            root's state cannot be pickled, or `RONDE_OBJECTS` is not "pickle".
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be one of torch, not {type(optimizer).__name__}")
    require_initialized()
    form = context.world().settings.objects
    if form != "pickle":
        raise RondeError(
            f"broadcast_optimizer_state needs pickle, and RONDE_OBJECTS is {form} on all ranks; "
            "give the tensors of optimizer.state_dict() to broadcast_parameters"
        )
    groups = [group["params"] for group in optimizer.param_groups]
    detail = f"{type(optimizer).__name__} of {list(map(len, groups))} parameters"
    _agree("broadcast_optimizer_state", root_rank, detail)
    tensors: list[Tensor] = []
    if context.rank() == root_rank:
        broadcast_object(
            _mapped(optimizer.state_dict(), torch.Tensor, partial(_sent, tensors)), root_rank
        )
        _broadcast_state(tensors, root_rank)
        return
    parameters = [parameter for group in groups for parameter in group]
    devices = {parameter.device.type: parameter.device for parameter in parameters}
    sent = broadcast_object(None, root_rank)
    state = _mapped(sent, _Sent, partial(_like, tensors, devices))
    _broadcast_state(tensors, root_rank)
    optimizer.load_state_dict(state)
    # Loading converts some to the type and device of their parameter, which they need not have.
    for key, values in state["state"].items():
        optimizer.state[parameters[key] if isinstance(key, int) else key] = values


def _broadcast_state(tensors: list[Tensor], root_rank: int) -> None:
    _broadcast_all({f"{i} of the state": tensor for i, tensor in enumerate(tensors)}, root_rank)


def _sent(tensors: list[Tensor], tensor: Tensor) -> _Sent:
    tensors.append(tensor)
    return _Sent(tuple(tensor.shape), tensor.dtype, tensor.device.type)


def _like(tensors: list[Tensor], devices: Mapping[str, torch.device], sent: _Sent) -> Tensor:
    device = devices.get(sent.device, torch.device("cpu"))
    tensors.append(torch.empty(sent.shape, dtype=sent.dtype, device=device))
    return tensors[-1]


def _mapped(value: Any, kind: type[T], replace: Callable[[T], Any]) -> Any:
    """A copy of what lists, tuples and dictionaries hold, with other leaves for those of a kind."""
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, dict):
        return {key: _mapped(each, kind, replace) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        mapped = [_mapped(each, kind, replace) for each in value]
        return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)
    return value


def broadcast_object(
    obj: Any = None,
    root_rank: int = 0,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Return the object of `root_rank` on all ranks.

    It is pickled there and unpickled elsewhere, which runs code of the sender; `RONDE_OBJECTS` can forbid it.
    The root gets its own object back.

    Args:
        obj: any object that can be pickled. Only the root's counts.
        root_rank: a rank of the job, in the process set.
        name: by which the ranks know the call.
        process_set: the ranks that take part.

    Raises:
        ValueError: an argument is wrong, a call of this name is under way, or before `init`.
        HorovodInternalError: the root could not pack its object, and raises its own error; the ranks
            describe the call differently, one has failed, or is in `join`; or `RONDE_OBJECTS` is "refuse".
    """
    communicator_in(process_set)
    root_of(root_rank, process_set)

    def broadcast(data: Any, what: str) -> None:
        label = name and f"{name}, {what}"
        _submit.broadcast(torch.from_numpy(data), True, root_rank, label, process_set).wait()

    return broadcast_by(broadcast, obj, root_rank)


def broadcast_object_fn(
    root_rank: int = 0, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Callable[[Any], Any]:
    """Return a function of an object that calls `broadcast_object` with these arguments."""
    return lambda obj: broadcast_object(obj, root_rank, name, process_set)


def allgather_object(
    obj: Any, name: str | None = None, process_set: ProcessSet = global_process_set
) -> list[Any]:
    """Return the objects of all ranks, as a list in the order of the ranks.

    They travel as in `broadcast_object`, whose arguments these are.
    """
    communicator_in(process_set)

    def allgather(data: Any) -> tuple[Any, list[int]]:
        rows, counts = _submit.allgather(torch.from_numpy(data), name, process_set).wait()
        return rows.numpy(), counts

    return allgather_by(allgather, obj, (process_set or global_process_set).ranks)
