"""Which process sets NCCL connects, and on which machines the ranks of a set: settled when a set is made.

In a set that NCCL connects, arrays of GPUs go over it where it can do what is called, and all ranks must have
theirs on GPUs. On a machine where it connects the ranks, they add up by it what is compressed between the
machines, if all of them have it on GPUs; other machines may do that otherwise.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from . import _core, cuda
from .errors import RondeError

__all__ = ["NOTHING", "Found", "connect", "found", "objection"]

_log = logging.getLogger("ronde")
_OLDEST = (2, 14)  # before it ranks cannot be connected without waiting for all of them


class Found(NamedTuple):
    """What a rank has: the UUIDs of GPUs for which there are kernels, the version of NCCL, and whether
    that lets ranks use a GPU together."""

    gpus: list[str]
    nccl: str
    shares_gpus: bool


NOTHING = Found([], "", False)


class Equipped(Protocol):
    """A rank: what it has, and on which machine."""

    @property
    def host(self) -> str: ...
    @property
    def gpus(self) -> list[str]: ...
    @property
    def nccl(self) -> str: ...
    @property
    def shares_gpus(self) -> bool: ...


def found(setting: str) -> Found:
    """On this rank. `setting`: what RONDE_NCCL says."""
    if setting == "off":
        return NOTHING
    try:
        gpus = _core.cuda_uuids()  # where there is no driver, NCCL need not be loaded
        version = cuda.require_nccl() if gpus else ""
        return Found(gpus, version, bool(version) and _core.nccl_shares_gpus())
    except RondeError:
        return NOTHING


def connect(communicator: _core.Communicator, members: Sequence[Equipped]) -> None:
    """Connects the ranks of a set by NCCL, if they can be, and those of this machine."""
    if not any(member.gpus for member in members):
        return
    why = objection(members)
    if why:
        text = f"arrays of GPUs are copied through the memory of the host: {why}"
    else:
        communicator.use_nccl()
        text = f"arrays of GPUs go over NCCL {members[0].nccl}"
    here = [member for member in members if member.host == members[communicator.rank].host]
    if 1 < len(here) < len(members) and not objection(here):
        communicator.use_nccl_inside()
        if why:
            text += f"; compressed ones go over NCCL {here[0].nccl} inside this machine"
    if communicator.rank == 0:
        _log.info("%s", text)


def objection(members: Sequence[Equipped]) -> str:
    """Why NCCL cannot connect them; empty if it can."""
    for rank, member in enumerate(members):
        if not member.gpus or not member.nccl:
            return f"rank {rank} of the process set lacks a GPU or NCCL"
        if member.nccl != members[0].nccl:
            return f"NCCL is {members[0].nccl} on rank 0 of the process set, {member.nccl} on rank {rank}"
    version = members[0].nccl
    if tuple(int(part) for part in version.split(".")) < _OLDEST:
        return f"NCCL {version} is older than {_OLDEST[0]}.{_OLDEST[1]}"
    if all(member.shares_gpus for member in members):
        return ""
    ranks: defaultdict[str, int] = defaultdict(int)
    gpus: defaultdict[str, set[str]] = defaultdict(set)
    for member in members:
        ranks[member.host] += 1
        gpus[member.host] |= set(member.gpus)
    for host, count in ranks.items():
        if len(gpus[host]) < count:
            have = len(gpus[host])
            return f"{host.split()[0]} has {count} ranks and {have} GPU{'s' * (have != 1)} for them"
    return ""
