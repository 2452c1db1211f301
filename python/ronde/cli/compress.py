"""`ronde bench compress`: how fast compressors are, how many bytes they save, and what is lost."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ..bench import chart, codecs, compressors, machine, table
from . import progress, quantities, ranks
from .console import wrapped

__all__ = ["add_parser", "run"]

_COMMAND = "bench compress"
_ITEM = 4

_EPILOG = """
examples:
  ronde bench compress
  ronde bench compress --compressors "int8,topk(0.001),linear(bits=3)" --size 100M
  ronde bench compress -np 4 --link 100Mbit --plot compression.png      # with four cores busy
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        _COMMAND,
        help="time compressors by themselves, and measure their errors",
        description=wrapped(
            "Times the compressors of ronde.compression by themselves: in this process, or on all ranks of "
            "`mpirun -n 4 ronde bench compress` at the same time, which shows what is left with all cores "
            "busy. docs/cli.md explains the columns."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--compressors",
        type=ranks.compressor_names,
        metavar="NAMES",
        help=f"of {', '.join(compressors.known())}, with parameters as in Python: "
        '"int8,topk(0.001),linear(bits=3)" (default: all of them)',
    )
    what.add_argument(
        "--size",
        type=_size,
        default="64M",
        metavar="BYTES",
        help="of the float32 values of a rank, which holds four such arrays and payloads (default: 64M)",
    )
    what.add_argument(
        "--distribution",
        choices=tuple(codecs.DISTRIBUTIONS),
        default="normal",
        metavar="NAME",
        help=f"of the values: {', '.join(codecs.DISTRIBUTIONS)}, with a root mean square of 1 "
        "(default: normal)",
    )
    what.add_argument(
        "--link",
        type=quantities.bit_rate,
        default="1Gbit",
        metavar="RATE",
        help="of the last column: what comes through such a link (default: 1Gbit)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--rounds", type=quantities.positive, default=7, metavar="N", help="default: 7"
    )
    ranks.add_arguments(how)
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="write all that was measured")
    out.add_argument("--plot", metavar="FILE", help="draw error against speed (.png, .svg, .pdf)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        if args.ranks:
            ranks.require_no_launcher("-np", _COMMAND)
        ranks.require_files(args.json, args.plot)
    except ValueError as error:
        return ranks.refuse(f"ronde {_COMMAND}", error)
    if args.plot and not ranks.launched_as():
        chart.require()
    return ranks.start(args.ranks) if args.ranks else _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from ..bench import peers

    names = args.compressors or compressors.everything()
    link = 1e-9 / args.link  # GB/s
    with peers.connect("ronde") as peer:
        random = np.random.default_rng(peer.rank)
        values = codecs.DISTRIBUTIONS[args.distribution](random, args.size // _ITEM)
        about = machine.describe() | {
            "values": f"{quantities.bytes_text(values.nbytes)} of float32, {args.distribution}",
            "link": quantities.rate_text(args.link).strip(" ()"),
        }
        if peer.rank == 0:
            ranks.say(ranks.about(about, peer.size))
            ranks.say(["", *table.codec_header(names)])
        rows: list[codecs.CodecRow] = []

        def report(row: codecs.CodecRow) -> None:
            progress.show("")
            rows.append(row)
            ranks.say([table.codec_line(row, names, link)])
            _show_next(names, len(rows))

        if peer.rank == 0:
            _show_next(names, 0)
        codecs.measure(peer, names, values, args.rounds, report)
        if peer.rank == 0:
            ranks.say(table.codec_bounds(rows))
            _keep(args, about, rows, link)
    return 0


def _show_next(names: list[str], done: int) -> None:
    if done < len(names):
        progress.show(f"{names[done]}, {done + 1} of {len(names)}")


def _keep(
    args: argparse.Namespace, about: dict[str, str], rows: list[codecs.CodecRow], link: float
) -> None:
    if args.json:
        method = {
            "size": args.size,
            "distribution": args.distribution,
            "link": link,
            "rounds": args.rounds,
        }
        with open(args.json, "w") as file:
            measured = [_fields(row, link) for row in rows]
            json.dump({"about": about, "method": method, "rows": measured}, file, indent=1)
    if args.plot:
        points = [
            chart.Point(row.compressor, row.over(link), row.error, row.unbiased) for row in rows
        ]
        title = f"{about['link']} link, {about['values']}"
        subtitle = f"{about['version']}, {about['CPU']}, {about['date']}"
        chart.trade_off(points, link, args.plot, title, subtitle)
    ranks.say_written(args.json, args.plot)


def _fields(row: codecs.CodecRow, link: float) -> dict[str, Any]:
    """With the figures that are made of others; GB/s of values."""
    speeds = {name: row.speed(name) for name in ("encode", "feedback", "decode", "add")}
    return asdict(row) | {"fewer": row.fewer, "speeds": speeds, "over_link": row.over(link)}


# ---- arguments -----------------------------------------------------------------------------------


def _size(text: str) -> int:
    size = quantities.size(text)
    if size < _ITEM:
        raise argparse.ArgumentTypeError(f"a float32 has {_ITEM} bytes")
    return size
