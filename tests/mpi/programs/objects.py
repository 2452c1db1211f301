"""What RONDE_OBJECTS lets through."""

import os

import numpy as np
import ronde

ronde.init()
form = os.environ["RONDE_OBJECTS"]
rank, size = ronde.rank(), ronde.size()
plain = {"step": 3, "losses": [0.5, float("inf")], "name": "größe", "best": None}


class Loud:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return print, (f"code of rank {rank} was run",)


def refused(call, error, words):
    try:
        call()
    except error as found:
        assert words in str(found), found
    else:
        raise AssertionError("it was sent")


if form == "refuse":
    for call in (ronde.broadcast_object, ronde.allgather_object):
        refused(lambda call=call: call(plain), ronde.RondeError, "RONDE_OBJECTS is refuse")
else:
    assert ronde.broadcast_object(plain if rank == 0 else None) == plain
    assert ronde.allgather_object([rank]) == [[other] for other in range(size)]
if form == "json":
    pair = ronde.broadcast_object((1, 2) if rank == 0 else None)
    assert pair == [1, 2]  # at the root too: all ranks get the same
    refused(lambda: ronde.allgather_object(Loud()), TypeError, "RONDE_OBJECTS is json")
    mine = Loud() if rank == 0 else None
    error = TypeError if rank == 0 else ronde.RondeError
    refused(lambda: ronde.broadcast_object(mine), error, "RONDE_OBJECTS is json")
if form == "pickle":
    ronde.allgather_object(Loud())
ronde.broadcast_parameters({"w": np.ones(3)})  # arrays are no objects
ronde.barrier()
if rank == 0:
    print("objects travel as they should")
