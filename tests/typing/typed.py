"""What a type checker makes of calls: `make lint` checks it, and nothing runs it."""

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import ronde

Floats = npt.NDArray[np.float32]


def reductions(x: Floats, number: float) -> None:
    assert_type(ronde.allreduce(x), Floats)
    assert_type(ronde.allreduce(number), float)
    assert_type(ronde.allreduce_(x, compression="int8", process_set=None), Floats)
    assert_type(ronde.grouped_allreduce([x, x]), list[Floats])
    assert_type(ronde.grouped_allreduce_([x]), list[Floats])
    assert_type(ronde.reduce(x), Floats | None)
    assert_type(ronde.reducescatter(x), Floats)
    assert_type(ronde.grouped_reducescatter([x]), list[Floats])


def movements(x: Floats, number: float, maybe: Floats | None) -> None:
    assert_type(ronde.broadcast(x), Floats)
    assert_type(ronde.broadcast(number), float)
    assert_type(ronde.broadcast_(x), Floats)
    assert_type(ronde.allgather(x), Floats)
    assert_type(ronde.allgather(number), npt.NDArray[Any])
    assert_type(ronde.grouped_allgather([x]), list[Floats])
    assert_type(ronde.gather(x), Floats | None)
    assert_type(ronde.gather(number), npt.NDArray[Any] | None)
    assert_type(ronde.scatter(maybe), Floats)
    assert_type(ronde.scatter(), Any)
    assert_type(ronde.alltoall(x), Floats)
    assert_type(ronde.alltoall(x, [1, 2]), tuple[Floats, list[int]])


def the_rest(state: dict[str, int] | None) -> None:
    assert_type(ronde.broadcast_object(state), dict[str, int])
    assert_type(ronde.broadcast_object(), Any)
    assert_type(ronde.allgather_object("text"), list[str])
    assert_type(ronde.empty(3), Floats)
    assert_type(ronde.empty((2, 3), np.int64), npt.NDArray[np.int64])
    assert_type(ronde.empty(3, "f8"), npt.NDArray[Any])
    assert_type(ronde.rank(), int)
    assert_type(ronde.counters(), dict[str, float])


def optimizers(inner: Any, x: Floats) -> None:
    opt = ronde.DistributedOptimizer(inner)
    assert_type(opt.communication_seconds, float)
    opt(x, [x])
    opt.step([x])
    opt.learning_rate = 0.1


def checkpoints(state: dict[str, Any]) -> None:
    ronde.compression.ErrorFeedback("int4").load_state_dict(state, None)
    ronde.compression.auto().load_state_dict([state], process_set=None)
    ronde.compression.dgc().load_state_dict(state, process_set=None)
