"""Training that goes on after an error: `run`, the states that it restores, and a sampler.

The ranks are fixed: nobody joins, and a rank that dies ends the job. What is survived are errors that leave
all processes alive, such as a rank that was late beyond `RONDE_STALL_TIMEOUT`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import ronde
from ronde import context
from ronde.errors import RondeError

from .. import basics
from .sampler import ElasticSampler
from .state import HostsUpdatedInterrupt, ObjectState, State, TorchState

__all__ = [
    "ElasticSampler",
    "HostsUpdatedInterrupt",
    "ObjectState",
    "State",
    "TorchState",
    "run",
]

T = TypeVar("T")

ATTEMPTS = 3  # failures with no commit in between, before the error is raised


def run(func: Callable[..., T]) -> Callable[..., T]:
    """Decorate a training function so that it starts again from the last commit after an error.

    The function's first argument is a `State`, which is synchronised before each start: all ranks have
    the state of rank 0. After a `RondeError` it is restored; where the error has left Ronde unusable,
    Ronde is started again in this process, process sets included. After `HostsUpdatedInterrupt` the state
    is kept. Then the callbacks of `register_reset_callbacks` are called.

    All ranks must call it. What fails three times without a commit in between would fail forever, so the
    third error is raised, as are all that are no `RondeError`.

        @hvd.elastic.run
        def train(state):
            for state.epoch in range(state.epoch, epochs):
                ...
                state.commit()

        train(hvd.elastic.TorchState(model, optimizer, epoch=0))

    Raises:
        ValueError: before `init`.
    """

    @functools.wraps(func)
    def wrapper(state: State, *args: Any, **kwargs: Any) -> T:
        if not ronde.is_initialized():
            raise ValueError("elastic.run needs the other ranks: call init() first")
        failures, commits = 0, state.commits
        synchronised = False
        while True:
            try:
                if not synchronised:
                    state.sync()
                return func(state, *args, **kwargs)
            except RondeError:
                failures = failures + 1 if state.commits == commits else 1
                commits = state.commits
                if failures == ATTEMPTS:
                    raise
                _restart()
                state.restore()
                synchronised = False
            except HostsUpdatedInterrupt as interrupt:
                synchronised = interrupt.skip_sync
            state.on_reset()

    return wrapper


def _restart() -> None:
    """Starts Ronde again if an error has left it unusable, with the same ranks and process sets."""
    world = context.world()
    if not world.control.failure:
        return
    # Those that their members have made alone are for them to make again.
    numbers = [number for number in sorted(world.sets) if 0 < number < context.FIRST_OWN]
    comm, sets = world.comm, [world.sets[number][0] for number in numbers]
    basics.shutdown()
    ronde.init(comm, process_sets=sets)
