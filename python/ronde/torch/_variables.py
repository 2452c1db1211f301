"""Variables of Horovod that mean what one of Ronde means."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["from_horovod", "in_environment", "note"]

_log = logging.getLogger("ronde")
_noted: set[str] = set()
_LEVELS = {"trace": "debug", "fatal": "error"}


def _threshold(text: str) -> str:
    return "1" if text == "0" else text  # bytes; 0 is for no fusion


def _level(text: str) -> str:
    return _LEVELS.get(text.lower(), text)


def _file(text: str) -> str:
    return "" if text == "DYNAMIC" else text  # which begins at start_timeline, as it always can


def _disabled(text: str) -> str:
    return "0" if text not in ("", "0") else ""


def _as_it_is(text: str) -> str:
    return text


# What Ronde calls it, and how it is written there: "" for what need not be set.
_VARIABLES: dict[str, tuple[str, Callable[[str], str]]] = {
    "HOROVOD_FUSION_THRESHOLD": ("RONDE_FUSION_BYTES", _threshold),
    "HOROVOD_TIMELINE": ("RONDE_TIMELINE", _file),
    "HOROVOD_STALL_CHECK_DISABLE": ("RONDE_STALL_WARNING", _disabled),
    "HOROVOD_STALL_CHECK_TIME_SECONDS": ("RONDE_STALL_WARNING", _as_it_is),
    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": ("RONDE_STALL_TIMEOUT", _as_it_is),
    "HOROVOD_LOG_LEVEL": ("RONDE_LOG", _level),
    "HOROVOD_THREAD_AFFINITY": ("RONDE_ENGINE_CORE", _as_it_is),
}


Taken = dict[str, tuple[str, str]]  # a variable of Ronde's, its value, and where it is from


def from_horovod() -> Taken:
    """What Horovod's variables say, for those of Ronde's that are not set."""
    taken: Taken = {}
    for theirs, (ours, written) in _VARIABLES.items():
        value = written(os.environ.get(theirs, "").strip())
        if value and not os.environ.get(ours, "").strip():
            taken.setdefault(ours, (value, theirs))
    return taken


@contextmanager
def in_environment(taken: Taken) -> Iterator[None]:
    """While Ronde reads its variables. Errors say where these are from."""
    os.environ.update({name: value for name, (value, _) in taken.items()})
    try:
        yield
    except ValueError as error:
        if not taken:
            raise
        said = ", ".join(f"{name} is from {theirs}" for name, (_, theirs) in taken.items())
        raise ValueError(f"{error} ({said})") from None
    finally:
        for name in taken:
            del os.environ[name]


def note(taken: Taken) -> None:
    """Says in the log what was taken, once."""
    for name, (value, theirs) in taken.items():
        if theirs not in _noted:
            _noted.add(theirs)
            _log.warning("%s is taken as %s=%s", theirs, name, value)
