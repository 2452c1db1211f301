"""What a job does: counters, and a timeline of its calls."""

from __future__ import annotations

from . import _metrics, _timeline, context

__all__ = ["counters", "start_timeline", "stop_timeline"]


def counters() -> dict[str, float]:
    """Return what this rank has done since `ronde.init`, by the names of docs/observing.md.

    Counts and bytes are whole numbers, times are seconds. All of them only grow.

    Raises:
        RondeError: before `init`.
    """
    return _metrics.counters(context.world())


def start_timeline(file: str) -> None:
    """Write what happens from now on to a timeline, until `stop_timeline` or the end of the program.
    All ranks must call it.

    Each rank writes a file beside the one that is named: `trace.rank3.json` for `trace.json`. At the
    end rank 0 joins them in `file`, and they are removed. If the job dies, or they have more than
    1 GiB together, they stay, and `ronde timeline merge trace.json` joins them. Perfetto
    (https://ui.perfetto.dev) and chrome://tracing show such files.

    Args:
        file: its path; the folder must exist on all machines.

    Raises:
        RondeError: a timeline is under way, or a file cannot be written on some rank. Nothing has
            begun then.
        MismatchError: the ranks gave different names, or made another call.
    """
    if not isinstance(file, str) or not file:
        raise TypeError(f"file must be the path of a file, not {file!r}")
    _timeline.start(context.world(), file)


def stop_timeline() -> None:
    """Complete the timeline. All ranks must call it.

    Raises:
        RondeError: there is none, or it could not be written; then the files of the ranks are kept.
        MismatchError: the ranks made another call.
    """
    _timeline.stop(context.world())
