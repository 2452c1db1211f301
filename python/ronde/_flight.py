"""The flight records of the ranks of a machine, as text: who waits for whom, and what came before."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import _core
from ._text import printable
from .errors import UnavailableError

__all__ = ["Rank", "Records", "find", "render", "seen"]

_UNDER_WAY = ("submitted", "begun", "moving")
# By job, which other users do not know, and process. (A process that was forked has its parent's too.)
Records = dict[tuple[str, int], _core.FlightReader]
_Row = tuple[str, str, str, str, str, str]
_MOST_PENDING = 5  # asynchronous calls of a rank that are shown one by one


@dataclass(frozen=True)
class Rank:
    """What one rank was doing when its record was read."""

    rank: int
    size: int  # of the job
    local_size: int
    process: int
    job: str
    host: str
    phase: str
    life: str  # of the process: "", "stopped" or "gone"
    lanes: list[_core.RecordedLane]
    time: float  # of time.monotonic()

    @cached_property
    def reached(self) -> dict[int, int]:
        """Of each process set that it is a member of, the agreement that it has come to in blocking calls."""
        return {
            each.set: max((call.sequence for call in each.calls), default=0)
            for each in self.lanes
            if each.lane == 0 and each.open
        }

    def under_way(self, *, asynchronous: bool) -> list[tuple[int, _core.Recorded]]:
        """Calls with their process sets, the oldest first."""
        found = [
            (lane.set, call)
            for lane in self.lanes
            if (lane.lane > 0) == asynchronous
            for call in lane.calls
            if call.state in _UNDER_WAY
        ]
        return sorted(found, key=_age)

    @cached_property
    def pending(self) -> Counter[tuple[int, str]]:
        """How many asynchronous calls are under way on each process set, of each kind and name."""
        return Counter((of, call.what) for of, call in self.under_way(asynchronous=True))

    def last(self, count: int) -> list[tuple[int, _core.Recorded]]:
        """The last calls, the oldest first."""
        calls = [(lane.set, call) for lane in self.lanes for call in lane.calls]
        return sorted(calls, key=_age)[-count:] if count else []


def _age(call: tuple[int, _core.Recorded]) -> tuple[float, int]:
    return call[1].submitted, call[1].number


def seen(reader: _core.FlightReader) -> Rank:
    """What a rank does now. Its process may have ended."""
    return Rank(
        reader.rank,
        reader.size,
        reader.local_size,
        reader.process,
        reader.job,
        reader.host,
        reader.phase,
        _life(reader.process),
        reader.lanes(),
        time.monotonic(),
    )


def find(processes: Iterable[int]) -> Records:
    """The flight records that these processes have open."""
    found: Records = {}
    for process in processes:
        folder = f"/proc/{process}/fd"
        with suppress(OSError):  # it has ended, or is of another user
            for name in os.listdir(folder):
                with suppress(UnavailableError):  # another file
                    reader = _core.FlightReader(f"{folder}/{name}")
                    # Else the rank does not know yet who it is, or begins again.
                    if reader.size > 0:
                        found[reader.job, reader.process] = reader
    return found


def _life(process: int) -> str:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return "gone"
    state = stat.rpartition(")")[2].split()[0]
    return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(state, "")


def render(ranks: Sequence[Rank], last: int = 5) -> str:
    """Who waits for whom among the ranks of one job on this machine, and the `last` calls of each."""
    ranks = sorted(ranks, key=lambda each: each.rank)
    rows: list[_Row] = [("rank", "process", "does", "for", "waits for", "call site")]
    for rank in ranks:
        rows += _rows(rank, ranks)
    lines = [f"ranks of the job on {printable(ranks[0].host)}:", *_aligned(rows)]
    size, here = ranks[0].size, ranks[0].local_size
    if len(ranks) < here:
        lines.append(
            f"(of {here - len(ranks)} more nothing is known: they had ended when their flight records were "
            "looked for, or had no memory for one)"
        )
    if here < size:
        lines.append(f"({size - here} of the {size} ranks of the job are on other machines)")
    for rank in ranks:
        calls = rank.last(last)
        if calls:
            lines.append(f"last calls of rank {rank.rank}:")
            lines += _aligned([_history(rank, number, call) for number, call in calls])
    return "\n".join(lines)


def _rows(rank: Rank, ranks: Sequence[Rank]) -> Iterator[_Row]:
    """Of one rank: a line for what it does, and one for each asynchronous call that is pending."""
    who = (str(rank.rank), str(rank.process))
    blocking = rank.under_way(asynchronous=False)
    for number, call in blocking:
        yield (
            *who,
            _life_first(rank, f"in {_name(number, call)}{_by(call)}"),
            _seconds(rank.time - call.began),
            _listed(_awaited(number, call, ranks)),
            printable(call.site),
        )
        who = ("", "")
    if not blocking:
        yield (*who, *_between_calls(rank), "", "")
    pending = rank.under_way(asynchronous=True)
    earlier: Counter[tuple[int, str]] = Counter()
    for number, call in pending[:_MOST_PENDING]:
        missing = _missing(number, call, earlier[number, call.what], ranks)
        earlier[number, call.what] += 1
        state = "submitted" if call.state == "submitted" else "runs"
        yield (
            "",
            "",
            f"{state}: {_name(number, call)}{_by(call)}",
            _seconds(rank.time - call.submitted),
            _listed(missing),
            printable(call.site),
        )
    if len(pending) > _MOST_PENDING:
        yield ("", "", f"and {len(pending) - _MOST_PENDING} more asynchronous calls", "", "", "")


def _between_calls(rank: Rank) -> tuple[str, str]:
    if rank.phase and rank.life != "gone":
        return _life_first(rank, rank.phase), ""
    last = max((call.ended for lane in rank.lanes for call in lane.calls), default=0.0)
    return _life_first(rank, "in no call"), _seconds(rank.time - last) if last else ""


def _life_first(rank: Rank, text: str) -> str:
    return f"{rank.life}: {text}" if rank.life else text


def _awaited(number: int, call: _core.Recorded, ranks: Sequence[Rank]) -> list[int]:
    """The ranks of this machine that have not come to a blocking call; else whose message is missing."""
    behind = []
    for other in ranks:
        if other.reached.get(number, call.sequence) < call.sequence:
            behind.append(other.rank)
    return behind or _peer(call)


def _peer(call: _core.Recorded) -> list[int]:
    return [call.peer] if call.peer >= 0 else []


def _missing(number: int, call: _core.Recorded, earlier: int, ranks: Sequence[Rank]) -> list[int]:
    """The ranks of this machine that have not submitted an asynchronous call; of one that runs, whose
    message is missing. `earlier`: calls of the same kind and name that this one comes after."""
    if call.state != "submitted":
        return _peer(call)
    members = [other for other in ranks if number in other.reached]
    return [other.rank for other in members if other.pending[number, call.what] <= earlier]


def _history(rank: Rank, number: int, call: _core.Recorded) -> _Row:
    ended = call.state not in _UNDER_WAY
    took = f"took {_seconds(call.ended - call.submitted)}" if ended else ""
    return (
        "",
        _name(number, call) + _by(call),
        call.state,
        f"{_seconds(rank.time - call.submitted)} ago",
        took,
        printable(call.site),
    )


def _name(number: int, call: _core.Recorded) -> str:
    """allreduce 'w' (4.0 KiB) on process set 2"""
    cut = min((i for i in map(call.what.find, "/#") if i >= 0), default=len(call.what))
    kind, name = call.what[:cut], call.what[cut + 1 :]
    text = f"{printable(kind)} '{printable(name)}'" if name else printable(kind)
    if call.bytes:
        text += f" ({_bytes(call.bytes)})"
    return text if number == 0 else f"{text} on process set {number}"


def _by(call: _core.Recorded) -> str:
    return f", by {printable(call.route)}" if call.route else ""


def _bytes(number: int) -> str:
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def _seconds(value: float) -> str:
    """The clock of the records ticks every few milliseconds."""
    if value < 0.01:
        return "< 10 ms"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _listed(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks)) if ranks else ""


def _aligned(rows: Sequence[_Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
