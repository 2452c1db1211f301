"""The tuning file: what `ronde tune` has measured, for `ronde.init` to read instead of measuring again.

Rank 0 reads it, wherever the ranks run, and tells the others, so that all choose alike. A file that is
made for something else, or broken, is ignored with one warning: it can make a job slower, and nothing
else. docs/cli.md says where it lies and what it holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from . import _core
from .settings import TUNING_FILE

__all__ = [
    "BETWEEN",
    "INSIDE",
    "Conditions",
    "Tuning",
    "agree",
    "conditions",
    "cpu",
    "mentioned",
    "parse",
    "path",
    "processor",
    "read",
    "require_writable",
    "why_not",
    "write",
]

_FORMAT = 1
_MOST_BYTES = 64 << 10  # of a file: ours have about one kilobyte

# The links there are: between machines, while all ranks of each use it, and by messages inside one.
BETWEEN, INSIDE = "between", "inside"

# Seconds, and seconds per byte. What is outside was not measured on any network.
_LIMITS = {"alpha": (1e-12, 10.0), "overhead": (1e-12, 10.0)}
_LIMITS |= {"beta": (1e-12, 1e-2), "gamma": (1e-12, 1e-2)}
_SEGMENTS = (4 << 10, 64 << 20)


@dataclass(frozen=True)
class Conditions:
    """What measured figures depend on."""

    mpi: str  # "Open MPI 5.0.11"
    processors: list[str]  # of the machines, each kind once
    machines: int
    ranks_per_machine: list[int]  # each number that occurs, once


@dataclass(frozen=True)
class Tuning:
    """What a tuning file says."""

    made_for: Conditions
    hosts: list[str]  # this and the date are for people
    date: str
    links: dict[str, dict[str, float]]
    segment_bytes: int

    @property
    def summary(self) -> str:
        """What it holds for, and of when it is."""
        made = self.made_for
        ranks = " or ".join(map(str, made.ranks_per_machine))
        where = f"{ranks} ranks on one machine"
        if made.machines > 1:
            where = f"several machines with {ranks} ranks each"
        return f"{where} under {made.mpi}, measured {self.date}"

    def link_between(self, hosts: Sequence[str]) -> _core.Link | None:
        """For ranks on these hosts; nothing where it has not been measured."""
        link = self.links.get(BETWEEN if len(set(hosts)) > 1 else INSIDE)
        return _core.Link(**link) if link else None


# ---- what figures depend on ----------------------------------------------------------------------


def cpu() -> str:
    """The processor of this host."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def processor() -> str:
    """The same with its cores: a machine of the same kind has the same."""
    return f"{cpu()}, {os.cpu_count()} cores"


def conditions(mpi: str, hosts: Sequence[str], processors: Sequence[str]) -> Conditions:
    """Of a job. `hosts`, `processors`: of each rank."""
    counts = Counter(hosts)
    return Conditions(mpi, sorted(set(processors)), len(counts), sorted(set(counts.values())))


def why_not(tuning: Tuning, here: Conditions) -> str:
    """Why figures do not hold here; empty where they do. The number of machines is free, but for one."""
    made = tuning.made_for
    if made.mpi != here.mpi:
        return f"it was made under {made.mpi}, and this is {here.mpi}"
    if made.processors != here.processors:
        kinds = " and ".join(made.processors), " and ".join(here.processors)
        return f"it was made on another machine ({kinds[0]}), and this is {kinds[1]}"
    if (made.machines == 1) != (here.machines == 1):
        return (
            f"it was made on {_count(made.machines)}, and the ranks are on {_count(here.machines)}"
        )
    if made.ranks_per_machine != here.ranks_per_machine:
        numbers = [" or ".join(map(str, each.ranks_per_machine)) for each in (made, here)]
        return f"it was made with {numbers[0]} ranks on a machine, and there are {numbers[1]}"
    return ""


def _count(machines: int) -> str:
    return f"{machines} machines" if machines > 1 else "one machine"


# ---- the file ------------------------------------------------------------------------------------


def path(environment: Mapping[str, str] | None = None) -> str | None:
    """Where it is or would be; nothing where none is to be read."""
    environment = os.environ if environment is None else environment
    named = environment.get(TUNING_FILE)
    if named is not None:
        named = named.strip()
        return None if named in ("", "none") else os.path.expanduser(named)
    base = environment.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.config")
    return os.path.join(base, "ronde", "tuning.json")


def mentioned() -> bool:
    """Whether the environment names a file, rather than leaving it at the usual one."""
    return TUNING_FILE in os.environ


def read(path: str) -> str:
    """The text of a file. Raises `OSError` or `ValueError` where it cannot be one of ours."""
    # A pipe would keep us waiting.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no file")
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("it is too long")
    return content.decode(errors="replace")


def parse(text: str) -> Tuning:
    """What the text of a file says. Raises `ValueError` that says what is wrong with it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError("its format is not the one that this version of Ronde writes")
    if content.get("ronde") != _core.__version__:
        made = f"it was made by Ronde {content.get('ronde')}"
        raise ValueError(f"{made}, and this is {_core.__version__}")
    try:
        return _tuning(content)
    except (AttributeError, KeyError, TypeError, RecursionError):
        raise ValueError("it is not complete") from None


def _tuning(content: dict[str, Any]) -> Tuning:
    made = content["made_for"]
    return Tuning(
        made_for=Conditions(
            str(made["mpi"]),
            [str(each) for each in made["processors"]],
            _whole("machines", made["machines"], 1, 1 << 31),
            [_whole("ranks_per_machine", each, 1, 1 << 31) for each in made["ranks_per_machine"]],
        ),
        hosts=[str(host) for host in content["hosts"]],
        date=str(content["date"]),
        links={
            name: {field: _number(field, link[field], *_LIMITS[field]) for field in _LIMITS}
            for name, link in content["links"].items()
            if name in (BETWEEN, INSIDE)
        },
        segment_bytes=_whole("segment_bytes", content["segment_bytes"], *_SEGMENTS),
    )


def _number(name: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"its {name} is no number")
    if not least <= value <= most:  # nor is it NaN
        raise ValueError(f"its {name} is not between {least:g} and {most:g}")
    return float(value)


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int):
        raise ValueError(f"its {name} is no whole number")
    return int(_number(name, value, least, most))


def write(path: str, tuning: Tuning) -> None:
    """Writes a file, all of it or nothing. Raises `OSError`."""
    target = os.path.realpath(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    content = {"format": _FORMAT, "ronde": _core.__version__, **asdict(tuning)}
    part = f"{target}.{os.getpid()}"
    try:
        with open(part, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def require_writable(path: str) -> None:
    """Makes the folders, and raises `OSError` where the file could not be written."""
    target = os.path.realpath(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path} is a folder")
    part = f"{target}.{os.getpid()}"
    with open(part, "w"):
        os.unlink(part)


# ---- in ronde.init -------------------------------------------------------------------------------


def agree(
    communicator: _core.Communicator,
    mpi: str,
    hosts: Sequence[str],
    segment_bytes: int | None,
    warn: Callable[[str], None],
) -> Tuning | None:
    """What rank 0 has read, on all ranks alike, if it holds for this job. `segment_bytes` wins if it is set.

    `hosts`: of each rank. All ranks must call it.
    """
    mine: dict[str, Any] = {"processor": processor()}
    file = path() if communicator.rank == 0 else None
    if file is not None:
        mine |= {"mpi": mpi} | _found(file)
        if segment_bytes:
            mine["segment_bytes"] = segment_bytes
    told = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    call = _core.Call("ronde.init, tuning file")
    lengths, data = communicator.allgather(call, told, told.size, 1)
    ends = np.cumsum(lengths)
    all_told = [
        json.loads(data[end - n : end].tobytes()) for n, end in zip(lengths, ends, strict=True)
    ]
    # From here on nothing is asked that only this rank knows.
    tuning, why = _judged(all_told, hosts)
    if why and file is not None:
        warn(
            f"the tuning file {file} is ignored, because {why}; `ronde tune`, started as this program "
            f"is, writes it anew, and {TUNING_FILE}=none reads none"
        )
    return tuning


def _found(file: str) -> dict[str, str]:
    try:
        return {"text": read(file)}
    except FileNotFoundError:
        return {"why": "it does not exist"} if mentioned() else {}
    except (OSError, ValueError) as error:
        return {"why": f"it cannot be read ({error})"}


def _judged(told: list[dict[str, Any]], hosts: Sequence[str]) -> tuple[Tuning | None, str]:
    first = told[0]
    if "text" not in first:
        return None, first.get("why", "")
    try:
        tuning = parse(first["text"])
    except ValueError as error:
        return None, str(error)
    here = conditions(first["mpi"], hosts, [each["processor"] for each in told])
    why = why_not(tuning, here)
    if why:
        return None, why
    return replace(tuning, segment_bytes=first.get("segment_bytes", tuning.segment_bytes)), ""
