"""`ronde inspect`: what the ranks of a job on this machine do, without their help."""

from __future__ import annotations

import argparse
import os

from .. import _flight
from ..errors import UnavailableError
from . import quantities
from .processes import all_processes, descendants

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "inspect",
        help="show what the ranks of a running job do, and who waits for whom",
        description="Shows what the ranks of a job on this machine do, who waits for whom, and the "
        "last calls of each. It reads their flight records and needs no help of theirs, so it works on "
        "processes that hang or are stopped. PID is that of any rank, or of a launcher: of mpirun or "
        "ronde run.",
    )
    parser.add_argument("process", type=int, metavar="PID", help="of a rank or a launcher")
    parser.add_argument(
        "--last",
        type=quantities.positive,
        default=5,
        metavar="N",
        help="so many last calls of each rank (default: 5)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not os.path.isdir(f"/proc/{args.process}"):
        raise UnavailableError(f"there is no process {args.process} on this machine")
    named = _flight.find([args.process, *descendants(args.process)])
    jobs = {job for job, _ in named}
    if not jobs:
        raise UnavailableError(
            f"process {args.process} and those below it have no flight record that can be read: they are no "
            "ranks after ronde.init, of another user, or on another machine (`ronde inspect` there)"
        )
    everything = named | _flight.find(all_processes())  # where some may have ended since
    for job in sorted(jobs):
        ranks = [_flight.seen(reader) for (of, _), reader in everything.items() if of == job]
        print(_flight.render(ranks, args.last))
    return 0
