"""Under torchrun: python torchrun.py hvd|backend|hook|ends|early. Each rank prints one line."""

from __future__ import annotations

import os
import sys

import ronde
import ronde.torch as hvd
import ronde.torch.distributed
import torch
import torch.distributed as dist


def main(what: str) -> None:
    if what == "early":
        from mpi4py import MPI  # noqa: F401
    if what == "hvd":
        hvd.init()
        value = hvd.allreduce(torch.ones(2), op=hvd.Sum)[0]
    elif what == "hook":
        dist.init_process_group("gloo")
        ronde.init()
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
        state = hvd.CommHookState("int8", named_parameters=model.module.named_parameters())
        model.register_comm_hook(state, hvd.comm_hook)
        model(torch.full((1, 4), ronde.rank() + 1.0)).sum().backward()
        value = 2 * model.module.weight.grad[0, 0] - 1  # the mean of 1 to n is (n + 1) / 2
    else:
        dist.init_process_group("ronde")
        is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if what == "ends" and is_first and dist.get_rank() == 1:
            os.kill(os.getpid(), 9)
        x = torch.ones(2)
        dist.all_reduce(x)
        value = x[0]
    left = [name for name in os.environ if name.startswith("PMI")]
    sys.stdout.write(f"rank {ronde.rank()} of {ronde.local_size()} got {value:.1f} {left}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
