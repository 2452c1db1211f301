"""With the tuning file that RONDE_TUNING_FILE names: what holds on every rank, in a line for rank 0 to say.

The calls are large enough that without a file they would measure the link.
"""

import json

import numpy as np
import ronde
from ronde import context
from ronde.process_set import global_process_set


def in_force(process_set):
    link = process_set._communicator.link
    return [link.alpha, link.overhead, link.beta, link.gamma]


ronde.init()
pair = ronde.add_process_set([0, 1])
before = in_force(global_process_set), in_force(pair) if pair.included() else None
ones = np.ones(1 << 16, np.float32)
assert (ronde.allreduce(ones, op=ronde.Sum) == ronde.size()).all()
if pair.included():
    assert (ronde.allreduce(ones, op=ronde.Sum, process_set=pair) == 2).all()
after = in_force(global_process_set), in_force(pair) if pair.included() else None
communicator = global_process_set._communicator
told = ronde.allgather_object(
    {
        "rank": ronde.rank(),
        "before": before,
        "after": after,
        "segment_bytes": communicator.settings.segment_bytes,
        "in_flight": communicator.in_flight,
        "machines": len({home.host for home in context.world().homes}),
    }
)
if ronde.rank() == 0:
    print("told", json.dumps(told))
