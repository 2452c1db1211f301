"""Variables of Horovod that mean what one of Ronde means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import context

__all__ = ["from_horovod"]

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


@contextmanager
def from_horovod() -> Iterator[dict[str, tuple[str, str]]]:
    """Sets variables of Ronde that are not set to what Horovod's say, before a job begins; until the end of
    the process, if it begins in this context. Gives the value of each, and where it is from."""
    taken: dict[str, tuple[str, str]] = {}
    for theirs, (ours, written) in () if context.is_initialized() else _VARIABLES.items():
        value = written(os.environ.get(theirs, "").strip())
        if value and not os.environ.get(ours, "").strip():
            taken[ours] = value, theirs
            os.environ[ours] = value
    try:
        yield taken
    except BaseException as error:
        for name in taken:
            del os.environ[name]
        if not taken or not isinstance(error, ValueError):
            raise
        said = ", ".join(f"{name} is from {theirs}" for name, (_, theirs) in taken.items())
        raise ValueError(f"{error} ({said})") from None
