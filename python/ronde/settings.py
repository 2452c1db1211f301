"""What the environment may set. docs/errors.md and `ronde doctor` list the variables.

All ranks must have the same settings: algorithm, message size and deadlines are chosen from them
without a word between the ranks. `ronde.init` compares and raises `MismatchError` on a difference.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import _core
from ._text import printable

__all__ = [
    "LOG",
    "VARIABLES",
    "Settings",
    "Variable",
    "cores",
    "load",
    "log_level",
    "unknown",
    "usual_segment_bytes",
]

T = TypeVar("T")
N = TypeVar("N", int, float)


def _flag(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words.update({"0": False, "false": False, "no": False, "off": False})
    return words[text.lower()]


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMG]?)(I?B)?", text.upper())
    if found is None:
        raise KeyError(text)
    value = int(found[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[found[2]]
    if not 1 <= value <= 1 << 30:
        raise ValueError("must be 1 to 1G")
    return value


def _number(kind: type[N], text: str) -> N:
    try:
        return kind(text)
    except ValueError:  # whose words are of Python
        raise KeyError(text) from None


def _seconds(text: str) -> float:
    value = _number(float, text)
    if not 0 <= value < 1e9:
        raise ValueError("must be seconds, 0 for never")
    return value


def _window(text: str) -> int:
    value = _number(int, text)
    if not 2 <= value <= 1024:
        raise ValueError("must be 2 to 1024")
    return value


def _level(text: str) -> int:
    return {
        "debug": logging.DEBUG,
        "info": logging.INFO,
        "warning": logging.WARNING,
        "error": logging.ERROR,
    }[text.lower()]


def _objects(text: str) -> str:
    return {"pickle": "pickle", "json": "json", "refuse": "refuse"}[text.lower()]


def _nccl(text: str) -> str:
    return {"auto": "auto", "off": "off"}[text.lower()]


_TAKEN = ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")


def _signal(text: str) -> int:
    number = signal.Signals["SIG" + text.upper().removeprefix("SIG")]  # which may be an alias
    if number.name in _TAKEN:
        raise ValueError("it cannot be used for that")
    return int(number)


def _cores(text: str) -> list[int]:
    """`2,3`"""
    found = [_number(int, each) for each in text.split(",")]
    if min(found) < 0:
        raise ValueError("cores count from 0")
    return found


def _port(text: str) -> int:
    value = _number(int, text)
    if not 1 <= value < 65536:
        raise ValueError("must be 1 to 65535")
    return value


def _file(text: str) -> str:
    folder = os.path.dirname(os.path.abspath(text))
    if os.path.isdir(text) or not os.path.isdir(folder):
        raise ValueError(f"there must be a folder {folder}")
    return text


def _algorithms(text: str) -> dict[str, str]:
    """`allreduce:ring,broadcast:tree`"""
    known = {(collective, name) for collective, name, *_ in _core.algorithms()}
    chosen = {}
    for item in filter(None, text.split(",")):
        collective, _, name = item.strip().partition(":")
        collective = collective.replace("reduce_scatter", "reducescatter")
        if (collective, name) not in known:
            names = sorted(n for c, n in known if c == collective)
            hint = (
                f"{collective} has {', '.join(names)}" if names else f"no such collective: {item!r}"
            )
            raise ValueError(hint)
        chosen[collective] = name
    return chosen


@dataclass(frozen=True)
class Variable(Generic[T]):
    """An environment variable: how it is read, what holds without it, and what it means."""

    name: str
    parse: Callable[[str], T]
    default: T
    form: str
    meaning: str

    def read(self, environment: Mapping[str, str]) -> T:
        text = environment.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except (KeyError, ValueError) as error:
            detail = f" ({error})" if isinstance(error, ValueError) else ""
            raise ValueError(f"{self.name}={text!r} is not {self.form}{detail}") from None


VARIABLES: dict[str, Variable[Any]] = {
    "check": Variable(
        "RONDE_CHECK",
        _flag,
        True,
        "0 or 1",
        "compare the calls of the ranks before each collective",
    ),
    "deterministic": Variable(
        "RONDE_DETERMINISTIC",
        _flag,
        False,
        "0 or 1",
        "the same bits whatever the measurements, the fusion and the position in the array",
    ),
    "stall_warning": Variable(
        "RONDE_STALL_WARNING",
        _seconds,
        60.0,
        "a number of seconds",
        "warn after waiting that long; 0 for never",
    ),
    "stall_timeout": Variable(
        "RONDE_STALL_TIMEOUT",
        _seconds,
        600.0,
        "a number of seconds",
        "raise StalledError after waiting that long; 0 for never",
    ),
    "segment_bytes": Variable(
        "RONDE_SEGMENT_BYTES",
        _bytes,
        None,
        "a size like 128K",
        "the longest message; if not set, 60K between machines, 512K inside one",
    ),
    "window": Variable(
        "RONDE_WINDOW", _window, 32, "a whole number", "messages of a collective under way at once"
    ),
    "shared_memory": Variable(
        "RONDE_SHARED_MEMORY",
        _flag,
        True,
        "0 or 1",
        "use shared memory between the ranks of one machine",
    ),
    "nccl": Variable(
        "RONDE_NCCL",
        _nccl,
        "auto",
        "auto or off",
        "use NCCL for arrays of GPUs where all ranks have it",
    ),
    "fusion_bytes": Variable(
        "RONDE_FUSION_BYTES",
        _bytes,
        32 << 20,
        "a size like 32M",
        "the largest bucket of arrays that are reduced as one",
    ),
    "report_signal": Variable(
        "RONDE_REPORT_SIGNAL",
        _signal,
        None,
        "a signal like USR2",
        "a rank that gets it shows what the ranks of its machine do",
    ),
    "timeline": Variable(
        "RONDE_TIMELINE",
        _file,
        None,
        "a file like trace.json",
        "write a timeline of all calls, for Perfetto",
    ),
    "metrics_port": Variable(
        "RONDE_METRICS_PORT",
        _port,
        None,
        "a port like 9400",
        "serve the counters for Prometheus on localhost, at this port plus the local rank",
    ),
    "metrics_file": Variable(
        "RONDE_METRICS_FILE",
        _file,
        None,
        "a file like metrics.prom",
        "write the counters for Prometheus to it now and then, with the rank in its name",
    ),
    "engine_core": Variable(
        "RONDE_ENGINE_CORE",
        _cores,
        None,
        "a core, or one for each local rank, like 2,3",
        "run the thread that moves asynchronous calls there, and nowhere else",
    ),
    "objects": Variable(
        "RONDE_OBJECTS",
        _objects,
        "pickle",
        "pickle, json or refuse",
        "how objects travel; unpickling runs code of the sender",
    ),
    "algorithm": Variable(
        "RONDE_ALGORITHM",
        _algorithms,
        {},
        "a list like allreduce:ring,broadcast:tree",
        "use these algorithms instead of shared memory and of the cheapest by measurement",
    ),
}
_OF_PYTHON = (
    "shared_memory",
    "nccl",
    "fusion_bytes",
    "engine_core",
    "objects",
    "report_signal",
    "timeline",
    "metrics_port",
    "metrics_file",
)  # the others are settings of the native core

_PREFIX = "RONDE_"
# Read by the native core, and free to differ between ranks.
_SIMD = "RONDE_SIMD"
LOG: Variable[int | None] = Variable(  # free to differ between ranks
    "RONDE_LOG",
    _level,
    None,
    "debug, info, warning or error",
    "write what the logger `ronde` says from this level on to standard error",
)


@dataclass(frozen=True)
class Settings:
    """The settings in force, with what the native core needs of them."""

    shared_memory: bool
    nccl: str  # "auto" or "off"
    fusion_bytes: int
    engine_core: list[int] | None  # by local rank, over and over
    objects: str  # "pickle", "json" or "refuse"
    report_signal: int | None
    timeline: str | None
    metrics_port: int | None
    metrics_file: str | None
    segment_bytes: int | None  # if it is set
    core: _core.Settings
    changed: str  # "RONDE_CHECK=False, RONDE_WINDOW=8": all that differ from the defaults


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment. Names that it does not know are left to `unknown`.

    Raises `ValueError` that names the variable and the form it should have.
    """
    environment = os.environ if environment is None else environment
    values = {field: variable.read(environment) for field, variable in VARIABLES.items()}
    _check_simd(environment)
    log_level(environment)
    _check_deterministic(values)
    core = _core.Settings()
    for field, value in values.items():
        if field not in _OF_PYTHON and value is not None:
            setattr(core, field, value)
    changed = ", ".join(
        f"{variable.name}={values[field]}"
        for field, variable in VARIABLES.items()
        if values[field] != variable.default
    )
    kept = {field: values[field] for field in (*_OF_PYTHON, "segment_bytes")}
    return Settings(core=core, changed=changed, **kept)


def unknown(environment: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each variable that begins with RONDE_ and is none of Ronde's."""
    environment = os.environ if environment is None else environment
    known = {variable.name for variable in VARIABLES.values()} | {_SIMD, LOG.name}
    texts = []
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known:
            # Without the prefix, in which all are alike.
            near = difflib.get_close_matches(
                name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in known], n=1
            )
            hint = f"; did you mean {_PREFIX}{near[0]}?" if near else ""
            texts.append(f"Ronde knows no variable {printable(name)}{hint}")
    return texts


def log_level(environment: Mapping[str, str] | None = None) -> int | None:
    """What `logging` calls the level that RONDE_LOG names; None where it is not set."""
    return LOG.read(os.environ if environment is None else environment)


def _check_simd(environment: Mapping[str, str]) -> None:
    wanted = environment.get(_SIMD, "").strip()
    if wanted and wanted not in _core.simd_levels():
        raise ValueError(
            f"{_SIMD}={wanted!r} is not one of {', '.join(_core.simd_levels())}, "
            "which this build and this processor have"
        )


def _check_deterministic(values: Mapping[str, Any]) -> None:
    bound = {
        (c, name)
        for c, name, position_independent, _ in _core.algorithms()
        if not position_independent
    }
    for collective, name in values["algorithm"].items():
        if values["deterministic"] and (collective, name) in bound:
            raise ValueError(
                f"RONDE_ALGORITHM={collective}:{name} contradicts RONDE_DETERMINISTIC=1: "
                "its rounding depends on the position of an element"
            )


def usual_segment_bytes(machines: int) -> int:
    """How long messages are if nobody has said it. (settings.h has the reason for those between machines.)"""
    if machines > 1:
        return _core.Settings().segment_bytes
    # Long vectors were up to twice as fast with it as with 60 KiB (docs/performance.md).
    return 512 << 10


def affinity() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def cores() -> int:
    """How many ranks can run at once here: the affinity mask and the cgroup's quota, rounded up."""
    allowed = len(affinity())
    return max(1, min(allowed, quota() or allowed))


def quota() -> int | None:
    """The quota of this process' control group in cores, rounded up, or nothing where there is none."""
    try:
        with open("/proc/self/cgroup") as file:
            path = next(
                (line.split(":", 2)[2].strip() for line in file if line.startswith("0:")), ""
            )
    except OSError:
        return None
    # Inside a container the path may be one that only the host can see; then the root is ours.
    for folder in (f"/sys/fs/cgroup{path}", "/sys/fs/cgroup"):
        try:
            with open(f"{folder}/cpu.max") as file:
                limit, period = file.read().split()
        except (OSError, ValueError):
            continue
        return None if limit == "max" else -(-int(limit) // int(period))
    return None
