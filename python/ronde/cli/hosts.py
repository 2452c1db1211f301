"""The hosts of a job and how many ranks each takes: from `-H`, from a hostfile, or from Slurm.

A slot is room for one rank. The words of Slurm are documented in sbatch(1), "Output environment
variables": a nodelist `node[01-03,7],gpu5`, and counts `4(x2),3`, one for each node in that order.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod

__all__ = [
    "Allocation",
    "Host",
    "allocation",
    "expand_counts",
    "expand_nodelist",
    "parse_hostfile",
    "parse_hosts",
    "place",
    "refuse_within_job",
    "within",
]

# Names and IPv4 addresses. Nothing else may reach a launcher, where `-x` would be an option.
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_MOST_SLOTS = 1 << 20  # a typing error above this
_MOST_NODES = 1 << 16
_FIRST_STEP_OF_SLURM_ITSELF = 0xFFFFFFF0  # batch scripts and the shells of salloc


@dataclass(frozen=True)
class Host:
    name: str
    slots: int


@dataclass(frozen=True)
class Allocation:
    """What Slurm has given to a job."""

    job: str
    hosts: tuple[Host, ...]
    ranks: int  # how many tasks were asked for


# ---- from the command line and from files --------------------------------------------------------


def parse_hosts(text: str) -> list[Host]:
    """`host1:4,host2` as given to -H; one slot where no number is given.

    Slots of a host that is named again are added. Raises `ValueError` for anything else.
    """
    return _sum(_colon_form(word.strip()) for word in text.split(","))


def parse_hostfile(text: str, name: str) -> list[Host]:
    """The content of a hostfile: a host on each line, as `host slots=4`, `host:4` or `host`.

    `#` begins a comment. Slots of a host that is named again are added. Raises `ValueError`, with
    `name` and the number of the line, for anything else.
    """
    found = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        words = re.sub(r"\s*=\s*", "=", line.partition("#")[0]).split()
        if not words:
            continue
        try:
            found.append(_line(words))
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from None
    if not found:
        raise ValueError(f"{name} contains no host")
    return _sum(found)


def _line(words: Sequence[str]) -> Host:
    host = _colon_form(words[0])
    if len(words) == 1:
        return host
    key, _, value = words[1].partition("=")
    if len(words) > 2 or key != "slots" or ":" in words[0]:
        raise ValueError(f"{' '.join(words)!r} is not like `host slots=4`, `host:4` or `host`")
    return Host(host.name, _slots(value))


def _colon_form(word: str) -> Host:
    if _is_ipv6(word) or _is_ipv6(word.rpartition(":")[0]):
        raise ValueError(
            f"{word}: launchers take no IPv6 address; give the host a name in /etc/hosts or in "
            "~/.ssh/config"
        )
    name, colon, slots = word.partition(":")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{word!r} is not like `host:4` or `host`")
    return Host(name, _slots(slots) if colon else 1)


def _is_ipv6(word: str) -> bool:
    with suppress(ValueError):
        ipaddress.IPv6Address(word.removeprefix("[").removesuffix("]"))
        return True
    return False


def _slots(text: str) -> int:
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
    if not 1 <= number <= _MOST_SLOTS:
        raise ValueError(f"{text!r} is not a number of slots")
    return number


def _sum(hosts: Iterable[Host]) -> list[Host]:
    slots: dict[str, int] = {}
    for host in hosts:
        slots[host.name] = slots.get(host.name, 0) + host.slots
    return [Host(name, number) for name, number in slots.items()]


# ---- from Slurm ----------------------------------------------------------------------------------


def allocation(environ: Mapping[str, str]) -> Allocation | None:
    """The allocation of Slurm that a process with these variables runs in, if any.

    Raises `ValueError` where the variables contradict each other.
    """
    job = environ.get("SLURM_JOB_ID", environ.get("SLURM_JOBID"))
    nodelist = environ.get("SLURM_JOB_NODELIST", environ.get("SLURM_NODELIST"))
    if not job or not nodelist:
        return None
    names = expand_nodelist(nodelist)
    slots = _slurm_slots(environ, names)
    ranks = environ.get("SLURM_NTASKS", "")
    hosts = tuple(map(Host, names, slots))
    return Allocation(job, hosts, _slots(ranks) if ranks else sum(slots))


def _slurm_slots(environ: Mapping[str, str], names: Sequence[str]) -> list[int]:
    """Tasks of each node, or cores where no number of tasks was asked for."""
    variables = ["SLURM_TASKS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE"]
    if len(names) == 1:
        variables.append("SLURM_CPUS_ON_NODE")
    name = next((name for name in variables if environ.get(name)), "")
    if not name:
        return [1] * len(names)
    slots = expand_counts(environ[name])
    if len(slots) != len(names):
        raise ValueError(
            f"{name}={environ[name]} is for {len(slots)} nodes, but the nodelist has {len(names)}"
        )
    return slots


def expand_nodelist(text: str) -> list[str]:
    """`node[01-03,7],gpu5` as names: node01, node02, node03, node7, gpu5. Raises `ValueError`."""
    wrong = ValueError(f"{text!r} is not a nodelist like node[01-03,7],gpu5")
    names: list[str] = []
    # A comma within brackets does not separate entries.
    for entry in re.split(r",(?![^\[\]]*\])", text):
        if not re.fullmatch(r"[^\[\]]*(\[[^\[\]]+\][^\[\]]*)*", entry):
            raise wrong
        parts = re.split(r"\[([^\]]+)\]", entry)
        try:
            choices = [_ranges(part) if odd % 2 else [part] for odd, part in enumerate(parts)]
        except ValueError:
            raise wrong from None
        if len(names) + prod(map(len, choices)) > _MOST_NODES:
            raise wrong
        names += map("".join, product(*choices))
    if not all(map(_NAME.fullmatch, names)):
        raise wrong
    return names


def _ranges(text: str) -> list[str]:
    """`01-03,7` as 01, 02, 03, 7: a number has at least as many digits as the first of its range."""
    found: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
        if match is None:
            raise ValueError(part)
        first, last = match[1], match[2] or match[1]
        if not 0 <= int(last) - int(first) < _MOST_NODES:
            raise ValueError(part)
        found += (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return found


def expand_counts(text: str) -> list[int]:
    """`4(x2),3` as 4, 4, 3. Raises `ValueError`."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,5})\))?", part)
        if match is None:
            raise ValueError(f"{text!r} is not a list of counts like 4(x2),3")
        found += [_slots(match[1])] * int(match[2] or 1)
    return found


def within(given: Sequence[Host], allocated: Sequence[Host]) -> list[Host] | None:
    """`given` in the order of the allocation, or None where a host is not part of it.

    Slurm starts tasks in its own order, whatever the order that it is asked for.
    """
    order = {host.name: position for position, host in enumerate(allocated)}
    if not all(host.name in order for host in given):
        return None
    return sorted(given, key=lambda host: order[host.name])


def refuse_within_job(environ: Mapping[str, str]) -> None:
    """Raises `ValueError` for a rank among several and for a task of `srun`.

    Each of them would start a job of its own, and Slurm would keep what a task starts waiting for
    the cores that the task itself holds.
    """
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        size = environ.get(variable, "")
        if size.isdecimal() and int(size) > 1:
            raise ValueError(
                f"this is one of {size} ranks that a launcher has started, and each would start a "
                "job; use either that launcher or ronde run"
            )
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID", ""))
    if step.isdecimal() and int(step) < _FIRST_STEP_OF_SLURM_ITSELF:
        raise ValueError(
            f"this is a task of srun (step {step} of job {environ.get('SLURM_JOB_ID')}), and each "
            "would start a job; call ronde run without srun, in the batch script or in the shell of "
            "salloc"
        )


# ---- which rank goes where -----------------------------------------------------------------------


def place(
    hosts: Sequence[Host], ranks: int | None, per_host: int | None, oversubscribe: bool
) -> list[Host]:
    """The hosts that are used, with the number of ranks on each instead of its slots.

    Ranks fill a host before the next. `ranks`: all slots if None. `per_host`: this many ranks on each
    host, whatever its slots. `oversubscribe`: what does not fit is spread over all hosts evenly.
    Raises `ValueError` where the ranks do not fit.
    """
    room = [per_host or host.slots for host in hosts]
    for host, number in zip(hosts, room, strict=True):
        if number > host.slots and not oversubscribe:
            raise ValueError(
                f"--per-host {per_host}: {host.name} has {_count(host.slots, 'slot')}; "
                "--oversubscribe allows more ranks than slots"
            )
    ranks = sum(room) if ranks is None else ranks
    surplus = ranks - sum(room)
    if surplus > 0 and not oversubscribe:
        raise ValueError(
            f"-np {ranks}: {_count(len(hosts), 'host')} with {_count(sum(room), 'slot')} in all; "
            "--oversubscribe allows more ranks than slots"
        )
    if surplus > 0:
        share, rest = divmod(surplus, len(hosts))
        room = [number + share + (index < rest) for index, number in enumerate(room)]
    placed = []
    for host, number in zip(hosts, room, strict=True):
        used = min(number, ranks)
        if used:
            placed.append(Host(host.name, used))
        ranks -= used
    return placed


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
