"""Which host every rank runs on, of which machine, and which of its cores it may use."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass, field

import numpy as np

from . import _core, _nccl, settings

__all__ = ["Home", "count_neighbours", "find", "has_a_core_of_its_own", "machines"]


@dataclass(frozen=True)
class Home:
    """The machine that a rank runs on, and what it may use there."""

    host: str  # its name, and which machine it is, where the system says that
    cores: list[int]
    quota: int | None  # so many cores' time for all ranks of the host together
    record: str = ""  # by which other ranks of the machine read its flight record
    token: str = ""  # that of no other process
    gpus: list[str] = field(default_factory=list)  # their UUIDs, if there is an NCCL for them
    nccl: str = ""  # its version
    shares_gpus: bool = False  # whether NCCL lets ranks use one together


def find(
    communicator: _core.Communicator, record: str = "", nccl: _nccl.Found = _nccl.NOTHING
) -> list[Home]:
    """Of all ranks. `record`: the path of this one's flight record; `nccl`: what it has for that."""
    host = f"{socket.gethostname()} {_boot_id()}"
    home = Home(host, settings.affinity(), settings.quota(), record, os.urandom(8).hex(), *nccl)
    mine = np.frombuffer(json.dumps(asdict(home)).encode(), np.uint8)
    data, lengths = communicator.allgather(mine, call=_core.Call("ronde.init"))
    ends = np.cumsum(lengths)
    return [
        Home(**json.loads(data[end - length : end].tobytes()))
        for length, end in zip(lengths, ends, strict=True)
    ]


def has_a_core_of_its_own(home: Home, homes: list[Home]) -> bool:
    """Whether every rank of this machine has. Launchers may bind each rank to some of the cores, and
    hosts that are containers share those of one machine."""
    here = [other for other in homes if other.host == home.host]
    machine = [other for other in homes if other.host.split()[1:] == home.host.split()[1:]]
    if not home.host.split()[1:]:  # it does not say which machine it is
        machine = here
    cores = len({core for rank in machine for core in rank.cores})
    return len(machine) <= cores and len(here) <= (home.quota or cores)


def machines(homes: list[Home]) -> int:
    """How many there are."""
    return len({home.host for home in homes})


def count_neighbours(homes: list[Home]) -> list[tuple[int, int]]:
    """Of each rank the number of its host, in order of first appearance, and its rank there."""
    hosts: dict[str, int] = {}
    counts: dict[str, int] = {}
    result = []
    for home in homes:
        counts[home.host] = counts.get(home.host, -1) + 1
        result.append((hosts.setdefault(home.host, len(hosts)), counts[home.host]))
    return result


def _boot_id() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return ""
