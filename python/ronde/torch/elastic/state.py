"""What training goes on from after an error: values that can be saved, restored, and synchronised."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

import ronde

from ..functions import broadcast_optimizer_state, broadcast_parameters
from .sampler import ElasticSampler

__all__ = [
    "HostsUpdatedInterrupt",
    "ModelStateHandler",
    "ObjectState",
    "OptimizerStateHandler",
    "SamplerStateHandler",
    "State",
    "StateHandler",
    "TorchState",
]


class HostsUpdatedInterrupt(RuntimeError):
    """Training starts again from the state as it is. `State.check_host_updates` raises it.

    Args:
        skip_sync: whether the ranks need not synchronise their states.
    """

    def __init__(self, skip_sync: bool = False) -> None:
        super().__init__("training starts again, as State.on_hosts_updated was called")
        self.skip_sync = skip_sync


class State:
    """The base of states for `elastic.run`. A subclass says how to save, restore, and synchronise.

    Args:
        bcast_object: a function of an object that returns that of rank 0; `ronde.broadcast_object`.
        get_rank: a function that returns this rank; `ronde.rank`.
    """

    def __init__(
        self,
        bcast_object: Callable[[Any], Any] | None = None,
        get_rank: Callable[[], int] | None = None,
    ) -> None:
        self._bcast_object = bcast_object or ronde.broadcast_object
        self._rank = get_rank or ronde.rank
        self._reset_callbacks: list[Callable[[], None]] = []
        self._updated = False
        self.commits = 0

    def register_reset_callbacks(self, callbacks: Iterable[Callable[[], None]]) -> None:
        """Add functions that are called before training starts again, in the order of the list."""
        self._reset_callbacks.extend(callbacks)

    def on_reset(self) -> None:
        """Call `reset`, and the functions of `register_reset_callbacks`."""
        self._updated = False
        self.reset()
        for callback in self._reset_callbacks:
            callback()

    def on_hosts_updated(self, timestamp: Any = None, update_res: Any = None) -> None:
        """Ask for a new start. All ranks make it at the next `commit` or `check_host_updates`.

        Ronde never calls it, as its ranks are fixed. A program may, from a handler of a signal say. The
        arguments are those of Horovod, and have no effect.
        """
        self._updated = True

    def commit(self) -> None:
        """Save the state of this rank in memory, then `check_host_updates`. All ranks must call it."""
        self.save()
        self.commits += 1
        self.check_host_updates()

    def check_host_updates(self) -> None:
        """Raise `HostsUpdatedInterrupt` on all ranks if any has asked for a new start.

        All ranks must call it.
        """
        asked = np.array([self._updated])
        if ronde.allreduce_async(asked, ronde.Max, "elastic.check_host_updates").wait()[0]:
            raise HostsUpdatedInterrupt

    def save(self) -> None:
        """Save the state of this rank in memory."""
        raise NotImplementedError

    def restore(self) -> None:
        """Go back to what was saved last."""
        raise NotImplementedError

    def sync(self) -> None:
        """Give all ranks the state of rank 0, and save it. All ranks must call it."""
        raise NotImplementedError

    def reset(self) -> None:
        """Do what a subclass has to do before training starts again; here nothing."""


class ObjectState(State):
    """Values that are the attributes of the state.

        state = hvd.elastic.ObjectState(epoch=0, batch=0)
        state.epoch += 1

    Args:
        bcast_object: as for `State`.
        get_rank: as for `State`.
        kwargs: names and first values: what can be copied and pickled.
    """

    def __init__(
        self,
        bcast_object: Callable[[Any], Any] | None = None,
        get_rank: Callable[[], int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(bcast_object, get_rank)
        taken = sorted(name for name in kwargs if hasattr(self, name))
        if taken:
            raise ValueError(
                f"a state has attributes of its own that are called {', '.join(taken)}"
            )
        self._saved = kwargs
        self.restore()

    def save(self) -> None:
        self._saved = copy.deepcopy(self._values())

    def restore(self) -> None:
        self._set(copy.deepcopy(self._saved))

    def sync(self) -> None:
        if self._saved:
            self._set(self._bcast_object(self._values()))
            ObjectState.save(self)

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._saved}

    def _set(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)


class StateHandler:
    """How to save, restore and synchronise a value with `state_dict` and `load_state_dict`."""

    def __init__(self, value: Any) -> None:
        self.set_value(value)

    def set_value(self, value: Any) -> None:
        """Take another value in its place, and save it."""
        self.value = value
        self.save()

    def save(self) -> None:
        """Keep a copy of its state."""
        self._saved = copy.deepcopy(self.value.state_dict())

    def restore(self) -> None:
        """Load the state that was saved last."""
        self.value.load_state_dict(copy.deepcopy(self._saved))

    def sync(self) -> None:
        """Give all ranks the state of rank 0, and save it."""
        self._synchronise()
        self.save()

    def _synchronise(self) -> None:
        self.value.load_state_dict(ronde.broadcast_object(self.value.state_dict()))


class ModelStateHandler(StateHandler):
    """The same for a module."""

    def _synchronise(self) -> None:
        broadcast_parameters(self.value.state_dict(), root_rank=0)


class OptimizerStateHandler(StateHandler):
    """The same for an optimizer. Gradients are dropped, as an error may have left any."""

    def restore(self) -> None:
        self._begin()
        super().restore()

    def _synchronise(self) -> None:
        self._begin()
        broadcast_optimizer_state(self.value, root_rank=0)

    def _begin(self) -> None:
        state = getattr(self.value, "_ronde", None)  # of a `DistributedOptimizer`
        if state is not None:
            state.reset()
        self.value.zero_grad()


class SamplerStateHandler(StateHandler):
    """The same for an `ElasticSampler`: what any rank has processed is processed for all."""

    def _synchronise(self) -> None:
        mine = np.array(sorted(self.value.processed_indices), np.int64)
        processed = ronde.allgather(mine).tolist()
        epoch = ronde.broadcast(self.value.epoch)
        self.value.load_state_dict({"epoch": epoch, "processed_indices": processed})


def _handler_of(value: Any) -> StateHandler | None:
    """None for a plain value."""
    if isinstance(value, torch.nn.Module):
        return ModelStateHandler(value)
    if isinstance(value, torch.optim.Optimizer):
        return OptimizerStateHandler(value)
    if isinstance(value, ElasticSampler):
        return SamplerStateHandler(value)
    methods = (getattr(value, name, None) for name in ("state_dict", "load_state_dict"))
    return StateHandler(value) if all(map(callable, methods)) else None


class TorchState(ObjectState):
    """A model, an optimizer, samplers, and plain values, which are the attributes of the state.

        state = hvd.elastic.TorchState(model, optimizer, sampler=sampler, scheduler=scheduler, epoch=0)

    Modules, optimizers, samplers, and all that has `state_dict` and `load_state_dict`, such as schedulers
    and `GradScaler`, are restored in place; `optimizer` may be a `DistributedOptimizer`. Other values are
    copied, as in an `ObjectState`. What is a rank's own, such as the residuals of an `ErrorFeedback`, must
    not be in it, as all ranks get the state of rank 0.

    Args:
        model: a module, or None.
        optimizer: an optimizer, or None.
        kwargs: names and first values of whatever else belongs to the state.
    """

    def __init__(self, model: Any = None, optimizer: Any = None, **kwargs: Any) -> None:
        values = {"model": model, "optimizer": optimizer, **kwargs}
        found = {name: _handler_of(value) for name, value in values.items()}
        self._handlers = {name: each for name, each in found.items() if each is not None}
        super().__init__(
            **{name: value for name, value in values.items() if name not in self._handlers}
        )
        for name, handler in self._handlers.items():
            super().__setattr__(name, handler.value)

    def save(self) -> None:
        for handler in self._handlers.values():
            handler.save()
        super().save()

    def restore(self) -> None:
        for handler in self._handlers.values():
            handler.restore()
        super().restore()

    def sync(self) -> None:
        for handler in self._handlers.values():
            handler.sync()
        super().sync()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self).get("_handlers", ()):
            self._handlers[name].set_value(value)
        super().__setattr__(name, value)
