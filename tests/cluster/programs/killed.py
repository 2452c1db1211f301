"""The last rank dies without a word while the others wait for it."""

import os
import signal

import numpy as np
import ronde

ronde.init()
ronde.allreduce(np.ones(1000))
if ronde.rank() == ronde.size() - 1:
    os.kill(os.getpid(), signal.SIGKILL)
ronde.allreduce(np.ones(1000))
print("nobody noticed")
