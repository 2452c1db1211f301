"""On several hosts, with or without a tuning file: which link holds on each rank, before and after a call."""

import json

import numpy as np
import ronde
from ronde.process_set import global_process_set

ronde.init()
communicator = global_process_set._communicator
before = communicator.link.beta
ronde.allreduce(np.ones(1 << 16, np.float32))
told = ronde.allgather_object([before, communicator.link.beta, communicator.settings.segment_bytes])
if ronde.rank() == 0:
    print("told", json.dumps(told))
