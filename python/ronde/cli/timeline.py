"""`ronde timeline merge`: one file of the parts that a job has left."""

from __future__ import annotations

import argparse

from .. import _timeline

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "timeline",
        help="join the timelines of the ranks of a job that has died",
        description="Joins the timelines of the ranks. An orderly end of a job does it by itself.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    merge = commands.add_parser(
        "merge",
        help="join trace.rank0.json, trace.rank1.json and so on in trace.json",
        description="Joins trace.rank0.json, trace.rank1.json and so on in trace.json, and keeps them.",
    )
    merge.add_argument("file", metavar="FILE", help="the name that the job was given: trace.json")
    merge.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    ranks = _timeline.join(args.file)
    print(f"{args.file}: the timelines of {len(ranks)} ranks")
    return 0
