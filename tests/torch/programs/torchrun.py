"""Under torchrun: torchrun.py WHAT [FILE]. Each rank prints one line.

WHAT is hvd (which starts another program too), hook (where mpi4py does not start MPI), backend, ends (once,
as FILE says), or early.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ronde
import ronde.torch as hvd
import ronde.torch.distributed
import torch
import torch.distributed as dist


def main(what: str, file: str = "") -> None:
    if what == "early":
        from mpi4py import MPI
    if what == "hvd":
        hvd.init()
        value = hvd.allreduce(torch.ones(2), op=hvd.Sum)[0]
        alone = "import ronde; ronde.init(); assert ronde.size() == 1"
        subprocess.run([sys.executable, "-c", alone], check=True)
    elif what == "hook":
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI  # noqa: F401

        dist.init_process_group("gloo")
        ronde.init()
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
        state = hvd.CommHookState("int8", named_parameters=model.module.named_parameters())
        model.register_comm_hook(state, hvd.comm_hook)
        model(torch.full((1, 4), ronde.rank() + 1.0)).sum().backward()
        value = 2 * model.module.weight.grad[0, 0] - 1  # the mean of 1 to n is (n + 1) / 2
    else:
        dist.init_process_group("ronde")
        if what == "ends" and dist.get_rank() == 1 and not Path(file).exists():
            Path(file).touch()
            os.kill(os.getpid(), 9)
        x = torch.ones(2)
        dist.all_reduce(x)
        value = x[0]
    left = sorted(name for name in os.environ if name.startswith("PMI"))
    sys.stdout.write(f"rank {ronde.rank()} of {ronde.local_size()} got {value:.1f} {left}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
