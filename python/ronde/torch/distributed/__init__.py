"""Ronde as a backend of `torch.distributed`.

    import ronde.torch.distributed
    torch.distributed.init_process_group("ronde")

Under `ronde run` or `mpirun` that is all: ranks, the size and the store come from Ronde, and `MASTER_ADDR` is
not needed. To import this module registers the backend, and the address "ronde://" for
`init_process_group(backend, init_method="ronde://")` with other backends.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

import ronde
from ronde import own_sets
from ronde.process_set import ProcessSet

from . import rendezvous
from .process_group import ProcessGroup

__all__ = ["ProcessGroup"]


def _create(options: Any, _: Any = None) -> ProcessGroup:
    """The group that torch asks for. All its members come here, and nobody else."""
    ronde.init()
    ranks = list(options.global_ranks_in_group)
    if not ranks:
        rendezvous.require_ranks_of_job(options.group_rank, options.group_size)
        return ProcessGroup(ronde.global_process_set, options.timeout)
    if ranks != sorted(ranks):
        raise ValueError(
            f"the ranks of a group of Ronde are in ascending order, not {ranks}; leave out sort_ranks=False"
        )
    return ProcessGroup(own_sets.add(ProcessSet(ranks)), options.timeout)


dist.Backend.register_backend("ronde", _create, extended_api=True, devices=["cpu", "cuda"])
rendezvous.register()
