"""Ranks in a control group of 600 MiB, each of which asks for 180 MiB of shared memory."""

import logging
import os
import sys
from pathlib import Path

Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))

import numpy as np  # noqa: E402
import ronde  # noqa: E402

MIB = 1 << 20

warnings = []
handler = logging.Handler()
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger("ronde").addHandler(handler)

ronde.init()
refused = False
for _ in range(3):
    # All at once: what each finds free, all together cannot have.
    x = ronde.empty(180 * MIB, np.uint8)
    is_shared = x.base is not None
    if is_shared:
        x[:] = 1
    assert not ronde.allgather(is_shared).all()
    refused |= not is_shared
    del x
    ronde.barrier()
assert [text.partition(":")[0] for text in warnings] == (
    ["ronde.empty returns ordinary memory"] if refused else []
)
# Nor do results get shared memory that there is not.
x = ronde.empty(30 * MIB, np.uint8)
x[:] = ronde.rank()
assert (ronde.reducescatter(x, ronde.Max) == ronde.size() - 1).all()
if ronde.rank() == 0:
    print("nobody was killed")
