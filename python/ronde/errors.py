"""What can go wrong, apart from wrong arguments (`TypeError`, `ValueError`). See docs/errors.md."""

from __future__ import annotations

__all__ = [
    "MismatchError",
    "RankFailedError",
    "RondeError",
    "StalledError",
    "UnavailableError",
]


class RondeError(RuntimeError):
    """The base of all errors of Ronde; by itself, a call before `init`, after a failure, or in a
    forked process.
    """


class MismatchError(RondeError):
    """The ranks made calls that do not belong together.

    All ranks of the process set raise it. The message shows every call with its ranks and its call
    site. Nothing was sent and no array was written, so Ronde can still be used.
    """


class RankFailedError(RondeError):
    """Another rank died, left, or gave up.

    Ronde cannot be used in this process until `ronde.shutdown()` and `ronde.init()`. Arrays of the
    call under way are undefined.
    """


class StalledError(RondeError):
    """Some rank did not come to a call within `RONDE_STALL_TIMEOUT` seconds. The message names it.

    Ronde cannot be used in this process until `ronde.shutdown()` and `ronde.init()`. Arrays of the
    call under way are undefined.
    """


class UnavailableError(RondeError):
    """Something optional is not built, not installed, or not offered by this MPI.

    The message says how to get it.
    """
