"""`ronde tune`: measures what messages between the ranks cost, and writes it down for `ronde.init` to read.

Links are measured as the first large call of a job would (csrc/collective/measure.cc), but several times,
and the medians count. The segment size is that with which an allreduce is fastest, if it is so each time.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

import ronde

from .. import _core, _homes, _mpi, context, settings, tuning
from ..process_set import global_process_set
from . import progress, quantities
from .quantities import bytes_text, time_text

__all__ = ["add_parser", "run"]

_SEGMENTS = tuple(size << 10 for size in (32, 60, 128, 256, 512))
_TRIAL_SECONDS = 0.05  # that an allreduce for the choice of the segment should take
_TRIAL_BYTES = (256 << 10, 8 << 20)
_TRIAL_ROUNDS, _TRIAL_CALLS = 5, 3
# Another segment size than the usual is taken where it is faster by this in every round.
_BETTER = 1.05

_SHOWN = ("allreduce", "reduce_scatter", "allgather", "broadcast", "reduce", "gather", "scatter")
_SHOWN_BYTES = (1 << 10, 256 << 20)

_TITLES = {tuning.BETWEEN: "between machines", tuning.INSIDE: "inside a machine"}

_EPILOG = """
Start it as your programs are started, on the same hosts and with as many ranks on each:
  mpirun -n 4 ronde tune
  ronde run -np 8 -H node1:4,node2:4 ronde tune
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "tune",
        help="measure the network, and write it down for jobs to come",
        description="Measures what messages between the ranks cost, on the ranks that a launcher has "
        "started, and writes it to a file that ronde.init reads, instead of measuring again in every "
        "job. docs/cli.md says when it is read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"instead of {settings.TUNING_FILE}, or of ronde/tuning.json in ~/.config",
    )
    parser.add_argument(
        "--repeat",
        type=quantities.positive,
        default=7,
        metavar="N",
        help="measure each link so many times (default: 7)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    path: str | None = args.output or tuning.path()
    os.environ[settings.TUNING_FILE] = "none"  # what was measured before is of no interest
    ronde.init()
    problem = ronde.broadcast_object(_problem(path) if ronde.rank() == 0 else "")
    if problem:
        if ronde.rank() == 0:
            print(f"ronde tune: error: {problem}", file=sys.stderr)
        return 2
    try:
        found, trials = _measure(args.repeat)
    finally:
        progress.show("")
    if ronde.rank() != 0 or path is None:
        return 0
    print("\n".join(_report(found, trials)))
    try:
        tuning.write(path, found)
    except OSError as error:
        print(f"ronde tune: error: {path} cannot be written ({error})", file=sys.stderr)
        return 1
    print(f"\nwritten to {path}")
    return 0


def _problem(path: str | None) -> str:
    if ronde.size() == 1:
        return "one rank has nobody to talk to: start several, as in `mpirun -n 4 ronde tune`"
    if path is None:
        return f"{settings.TUNING_FILE} says that there is no file: name one with --output"
    try:
        tuning.require_writable(path)
    except OSError as error:
        return f"{path} cannot be written ({error})"
    return ""


# ---- measuring, on all ranks ---------------------------------------------------------------------


class Trials(NamedTuple):
    """How long an allreduce of so many bytes takes with segments of each size."""

    size: int
    rounds: dict[int, list[float]]
    usual: int  # the segment to keep unless another is better

    def median(self, segment: int) -> float:
        return statistics.median(self.rounds[segment])

    def best(self) -> int:
        best = min(self.rounds, key=self.median)
        pairs = zip(self.rounds[self.usual], self.rounds[best], strict=True)
        return best if all(slow > _BETTER * fast for slow, fast in pairs) else self.usual


def _measure(repeat: int) -> tuple[tuning.Tuning, Trials]:
    world = context.world()
    hosts = [home.host for home in world.homes]
    processors = ronde.allgather_object(tuning.processor())
    made_for = tuning.conditions(_mpi.name(world.job.MPI), hosts, processors)
    links = {name: _median_link(name, rings, repeat) for name, rings in _rings(made_for).items()}
    used = links[tuning.BETWEEN if made_for.machines > 1 else tuning.INSIDE]
    trials = _try_segments(used)
    found = tuning.Tuning(
        made_for=made_for,
        hosts=[host.split()[0] for host in dict.fromkeys(hosts)],
        date=datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        links=links,
        segment_bytes=trials.best(),
    )
    return found, trials


def _rings(made_for: tuning.Conditions) -> dict[str, list[int]]:
    """For each link the rings in which ranks exchange messages; all rings are measured at once."""
    neighbours = context.world().neighbours
    rings = {}
    if made_for.machines > 1:
        equal = len(made_for.ranks_per_machine) == 1
        rings[tuning.BETWEEN] = [place if equal else 0 for _, place in neighbours]
    if made_for.ranks_per_machine[-1] > 1:
        rings[tuning.INSIDE] = [machine for machine, _ in neighbours]
    return rings


def _median_link(name: str, rings: Sequence[int], repeat: int) -> dict[str, float]:
    """The ranks agree on each measurement, and so on the medians."""
    communicator = global_process_set._member()
    measured = []
    for number in range(repeat):
        _show(f"measuring messages {_TITLES[name]}: {number + 1} of {repeat}")
        communicator.measure_link(rings)
        measured.append(communicator.link)
    fields = ("alpha", "overhead", "beta", "gamma")
    return {field: statistics.median(getattr(link, field) for link in measured) for field in fields}


def _try_segments(link: dict[str, float]) -> Trials:
    """In turns, and with new communicators each time, as a program has them."""
    least, most = _TRIAL_BYTES
    wanted = _TRIAL_SECONDS / (2 * link["beta"])
    size = least
    while 2 * size <= min(wanted, most):
        size *= 2
    if context.world().shares_memory and ronde.cross_size() == 1:
        os.environ[settings.VARIABLES["shared_memory"].name] = "0"
    array = np.zeros(size // 4, np.float32)
    rounds: dict[int, list[float]] = {segment: [] for segment in _SEGMENTS}
    for number in range(_TRIAL_ROUNDS):
        for segment in _SEGMENTS:
            _show(f"trying segments: {bytes_text(segment)}, {number + 1} of {_TRIAL_ROUNDS}")
            _begin_anew(link, segment)
            rounds[segment].append(_seconds_of(array))
    usual = settings.usual_segment_bytes(_homes.machines(context.world().homes))
    trials = Trials(size, rounds, usual)
    _begin_anew(link, trials.best())
    return trials


def _begin_anew(link: dict[str, float], segment: int) -> None:
    ronde.shutdown()
    os.environ[settings.VARIABLES["segment_bytes"].name] = str(segment)
    ronde.init()
    global_process_set._member().set_link(_core.Link(**link))


def _seconds_of(array: np.ndarray) -> float:
    """One allreduce, on the rank where it takes longest."""
    ronde.allreduce_(array, op=ronde.Sum)
    start = time.perf_counter()
    for _ in range(_TRIAL_CALLS):
        ronde.allreduce_(array, op=ronde.Sum)
    seconds = (time.perf_counter() - start) / _TRIAL_CALLS
    return float(ronde.allreduce(seconds, op=ronde.Max))


def _show(text: str) -> None:
    if ronde.rank() == 0:
        progress.show(text)


# ---- what was found, on rank 0 -------------------------------------------------------------------


def _report(found: tuning.Tuning, trials: Trials) -> Iterator[str]:
    made_for = found.made_for
    yield f"# ranks:     {ronde.size()} on {', '.join(found.hosts)}"
    yield f"# processor: {' and '.join(made_for.processors)}"
    yield f"# MPI:       {made_for.mpi}"
    yield ""
    yield f"{'# messages':<20}{'alpha':>10}{'overhead':>10}{'beta':>10}{'gamma':>10}"
    yield f"{'#':<20}{'(us)':>10}{'(us)':>10}{'(GB/s)':>10}{'(GB/s)':>10}"
    for name, link in found.links.items():
        yield (
            f"{_TITLES[name]:<20}{link['alpha'] * 1e6:>10.2f}{link['overhead'] * 1e6:>10.2f}"
            f"{1e-9 / link['beta']:>10.3g}{1e-9 / link['gamma']:>10.3g}"
        )
    yield ""
    flight = global_process_set._member().in_flight
    yield (
        f"segments of {bytes_text(found.segment_bytes)}, {bytes_text(flight)} of them under way at once; "
        f"an allreduce of {bytes_text(trials.size)} takes"
    )
    yield "  " + ", ".join(
        f"{time_text(trials.median(segment))} with {bytes_text(segment)}"
        for segment in trials.rounds
    )
    yield ""
    name = tuning.BETWEEN if tuning.BETWEEN in found.links else tuning.INSIDE
    yield f"algorithms for messages {_TITLES[name]}, each with the size from which it is the one"
    for collective in _SHOWN:
        changes = _changes(collective, found.links[name])
        yield f"{collective:<16}" + ", ".join(f"{bytes_text(n)} {each}" for n, each in changes)
    if len(found.links) == 1 and name == tuning.INSIDE:
        yield ""
        yield (
            "Ranks of one machine use its memory, which needs no tuning. This is for jobs with "
            "RONDE_SHARED_MEMORY=0."
        )


def _changes(collective: str, link: dict[str, float]) -> Iterator[tuple[int, str]]:
    """From which size on which algorithm would be taken."""
    ranks, parts = ronde.size(), 1
    if collective == "allreduce" and context.world().shares_memory and ronde.cross_size() > 1:
        ranks, parts = ronde.cross_size(), ronde.local_size()  # each rank drives a part of it
    size, last = _SHOWN_BYTES[0], ""
    while size <= _SHOWN_BYTES[1]:
        items = -(-size // parts // 4)  # of the largest slice
        counts = [items // ranks + (rank < items % ranks) for rank in range(ranks)]
        chosen, cost = _core.candidates(collective, counts, 0, 4, **link)[0]
        if collective == "allreduce":
            phase_0 = math.ceil(math.log2(ranks)) * link["alpha"]
            otherwise = phase_0 + cost.seconds
            ride = _core.cheapest_ride(4 * items, ranks, _core.Link(**link), otherwise)
            chosen = f"{ride[0]} in phase 0" if ride else chosen
        if chosen != last:
            yield size, chosen
        size, last = 2 * size, chosen
