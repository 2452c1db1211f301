"""`ronde bench`: times collectives, checks their results, and compares Ronde with its peers."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .. import _core
from ..bench import chart, machine, table
from ..bench.cells import COLLECTIVES, DTYPES, OPS, Cell, Job, Row
from . import progress, quantities

__all__ = ["add_parser", "run"]

_KINDS = {"mpi": "mpi", "gloo": "gloo", "horovod": "horovod"}
_FACTOR = 2

_EPILOG = """
examples:
  mpirun -n 8 ronde bench allreduce --sizes 8:256M
  ronde bench -np 8 allreduce,broadcast --sizes 8,1K,1M --dtype float32,float16
  ronde bench -np 2 allreduce --sizes 8:64M:8 --bound --peers mpi,gloo=/path/to/venv/bin/python \\
      --json bench.json --plot bench.png
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="time collectives, check their results, compare with other libraries",
        description="Times collectives and checks their results, on the ranks that mpirun has started "
        "(`mpirun -n 8 ronde bench allreduce`) or with -np on ranks of its own. The columns are those "
        "of nccl-tests; docs/cli.md explains them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "collectives",
        type=_words(tuple(COLLECTIVES), everything="all"),
        metavar="COLLECTIVE",
        help=f"one or several of {', '.join(COLLECTIVES)}, joined by commas, or all; "
        "memory is the bound: every rank scales a vector of its own",
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--sizes",
        type=_sizes,
        default="8:64M",
        metavar="SIZES",
        help="bytes: from:to (doubling), from:to:factor, or a list like 8,1K,16M (default: 8:64M)",
    )
    what.add_argument(
        "--dtype",
        type=_words(tuple(DTYPES)),
        default="float32",
        metavar="DTYPES",
        help=f"of {', '.join(DTYPES)} (default: float32)",
    )
    what.add_argument(
        "--op",
        type=_words(OPS),
        default="sum",
        metavar="OPS",
        help=f"of {', '.join(OPS)} (default: sum)",
    )
    what.add_argument("--root", type=_whole, default=0, metavar="RANK", help="default: 0")
    what.add_argument(
        "--buffers",
        type=_words(("plain", "shared")),
        default="plain",
        metavar="BUFFERS",
        help="plain: arrays of NumPy, as programs pass them (default); shared: from ronde.empty; "
        "or both",
    )
    what.add_argument(
        "--compression",
        type=_words(("none", *_core.compressor_names())),
        default="none",
        metavar="NAMES",
        help="of allreduce, by names in ronde.compression: bandwidths are those of the bytes before "
        "it, and nothing is checked (default: none)",
    )
    what.add_argument(
        "--out-of-place",
        action="store_true",
        help="allreduce and broadcast instead of allreduce_ and broadcast_",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--seconds",
        type=_duration,
        default=0.2,
        metavar="TIME",
        help="of measuring for each size, at least (default: 0.2)",
    )
    how.add_argument(
        "--iterations", type=quantities.positive, metavar="N", help="instead of --seconds"
    )
    how.add_argument(
        "--warmup",
        type=_whole,
        default=10,
        metavar="N",
        help="calls before, at least (default: 10)",
    )
    how.add_argument("--no-check", action="store_true", help="do not check the results")
    how.add_argument(
        "--no-rotate",
        action="store_true",
        help="use the same buffers in every call, and let caches flatter",
    )
    how.add_argument(
        "--bound",
        action="store_true",
        help="measure the memory's speed beside each large allreduce, and show the share reached",
    )
    how.add_argument(
        "--busy",
        type=_whole,
        default=0,
        metavar="K",
        help="keep K spinning processes running on each host meanwhile",
    )
    where = parser.add_argument_group("on what")
    where.add_argument(
        "-np",
        "-n",
        "--np",
        dest="ranks",
        type=quantities.positive,
        metavar="N",
        help="start so many ranks, when not under mpirun",
    )
    where.add_argument(
        "--peers",
        type=_peers,
        default=[],
        metavar="PEERS",
        help="compare with mpi, gloo, horovod, in launches that alternate (needs -np); "
        "NAME=PYTHON is a peer of another environment, where any name but gloo and horovod is an MPI",
    )
    where.add_argument(
        "--rounds", type=quantities.positive, default=3, metavar="N", help="default: 3"
    )
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="write all that was measured")
    out.add_argument("--plot", metavar="FILE", help="draw a chart (.png, .svg, .pdf)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    rank = _launched_as()
    try:
        _require_sense(args, rank is not None)
    except ValueError as error:
        if (
            rank
        ):  # a launcher ends the job at the first status that is not 0: rank 0 must have spoken
            return 0
        print(f"ronde bench: error: {error}", file=sys.stderr)
        return 2
    if args.plot and not rank:
        chart.require()
    if args.peers:
        return _compare(args)
    if args.ranks:
        return _start(args)
    return _measure(args)


def _launched_as() -> int | None:
    """The rank that a launcher has given this process. (A batch script of Slurm has SLURM_PROCID too.)"""
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def _require_sense(args: argparse.Namespace, launched: bool) -> None:
    if launched and (args.peers or args.ranks):
        what = "--peers" if args.peers else "-np"
        raise ValueError(
            f"{what} starts ranks of its own: call `ronde bench -np N ...` without mpirun"
        )
    if args.peers and not args.ranks:
        raise ValueError("--peers needs to know how many ranks to start: add -np N")
    if args.ranks and args.root >= args.ranks:
        raise ValueError(f"root {args.root} is no rank of {args.ranks}")
    if args.plot and not args.plot.endswith(chart.FORMATS):
        raise ValueError(f"{args.plot} is no {', '.join(chart.FORMATS)}")
    for file in filter(None, (args.json, args.plot)):
        folder = os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):
            raise ValueError(f"the folder of {file} does not exist")


def _job(args: argparse.Namespace) -> Job:
    return Job(
        list(dict.fromkeys(_cells(args))),
        seconds=args.seconds,
        iterations=args.iterations or 0,
        warmup=args.warmup,
        check=not args.no_check,
        rotate=not args.no_rotate,
        bound=args.bound,
        busy=args.busy,
    )


def _cells(args: argparse.Namespace) -> Iterator[Cell]:
    for name in args.collectives:
        kind = COLLECTIVES[name]
        for dtype in args.dtype if name != "barrier" else args.dtype[:1]:
            for op in args.op if kind.reduces else args.op[:1]:
                for buffers in args.buffers if name != "barrier" else ("plain",):
                    for compression in args.compression if name == "allreduce" else ("none",):
                        for size in args.sizes if name != "barrier" else (0,):
                            root = args.root if kind.rooted else 0
                            in_place = not args.out_of_place
                            yield Cell(name, size, dtype, op, root, in_place, buffers, compression)


# ---- on ranks that are there ---------------------------------------------------------------------


def _measure(args: argparse.Namespace) -> int:
    from ..bench import peers, worker

    job = _job(args)
    rows: list[Row] = []
    with peers.connect("ronde") as peer:
        if args.root >= peer.size:
            if peer.rank == 0:
                print(
                    f"ronde bench: error: root {args.root} is no rank of {peer.size}",
                    file=sys.stderr,
                )
            return 2
        if peer.rank != 0:
            worker.measure(peer, job, rows.append)
            return 0
        about = machine.describe() | peer.about
        _say(_about(about, peer.size))
        title = ""

        def report(row: Row) -> None:
            nonlocal title
            rows.append(row)
            new = table.title(row.cell, row.ranks)
            if new != title:
                title = new
                _say(["", title, *table.header(bound=job.bound)])
            _say([table.line(row, bound=job.bound)])

        worker.measure(peer, job, report)
        _keep(args, job, about, rows)
    return _status(rows)


def _start(args: argparse.Namespace) -> int:
    """The same command on ranks that `ronde run` starts."""
    from . import main

    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("-np", "-n", "--np")
    _, words = own.parse_known_args(sys.argv[1:])
    program = [sys.executable, "-m", "ronde", *words]
    return main(["run", "-np", str(args.ranks), "--", *program])


# ---- with peers ----------------------------------------------------------------------------------


def _compare(args: argparse.Namespace) -> int:
    from ..bench import rounds

    job = _job(args)
    entrants = [rounds.Entrant("ronde", "ronde", sys.executable)]
    entrants += [
        rounds.Entrant(label, _KINDS.get(label, "mpi"), python or sys.executable)
        for label, python in args.peers
    ]
    about = machine.describe()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and clean up
    try:
        result = rounds.compare(entrants, job, args.ranks, args.rounds, progress=progress.show)
    finally:
        progress.show("")
    about |= result.about["ronde"]
    about |= {name: each["library"] for name, each in result.about.items() if name != "ronde"} | {
        name: f"left out: {why}" for name, why in result.left_out.items()
    }
    _say(_about(about, args.ranks))
    _say(table.comparison(result.rows, bound=job.bound))
    _keep(args, job, about, result.rows)
    return _status(result.rows)


# ---- what comes out ------------------------------------------------------------------------------


def _say(lines: Any) -> None:
    for text in lines:
        print(text, flush=True)


def _about(about: dict[str, str], ranks: int) -> Iterator[str]:
    for name, value in {"ranks": str(ranks), **about}.items():
        yield f"# {name + ':':<11}{value}"


def _keep(args: argparse.Namespace, job: Job, about: dict[str, str], rows: Sequence[Row]) -> None:
    if args.json:
        method = {name: value for name, value in asdict(job).items() if name != "cells"}
        with open(args.json, "w") as file:
            measured = [asdict(row) | {"algbw": row.algbw, "busbw": row.busbw} for row in rows]
            json.dump({"about": about, "method": method, "rows": measured}, file, indent=1)
    if args.plot:
        chart.draw(rows, args.plot, f"{about['version']}, {about['CPU']}, {about['date']}")


def _status(rows: Sequence[Row]) -> int:
    """1 if Ronde's own results are wrong."""
    return int(any(row.wrong for row in rows if row.peer == "ronde"))


# ---- arguments -----------------------------------------------------------------------------------


def _words(known: Sequence[str], everything: str = "") -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        if everything and text == everything:
            return list(known)
        words = list(dict.fromkeys(text.split(",")))
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(known)}")
        return words

    return parse


def _sizes(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        words = part.split(":")
        if len(words) > 3:
            raise argparse.ArgumentTypeError(f"'{part}' is not like 8, 8:256M or 8:256M:4")
        bounds = [quantities.size(word) for word in words[:2]]
        factor = quantities.positive(words[2]) if len(words) == 3 else _FACTOR
        if min(bounds) < 1:
            raise argparse.ArgumentTypeError("a size is at least 1 byte")
        if bounds[0] > bounds[-1]:
            raise argparse.ArgumentTypeError(f"'{part}' goes from the smaller to the larger size")
        if factor < 2:
            raise argparse.ArgumentTypeError(f"'{part}' needs a factor of at least 2")
        size = bounds[0]
        while size <= bounds[-1]:
            found.append(size)
            size *= factor
    return list(dict.fromkeys(found))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0 up")
    return int(text)


def _duration(text: str) -> float:
    seconds = quantities.seconds(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("measuring takes time: more than 0")
    return seconds


def _peers(text: str) -> list[tuple[str, str]]:
    """(name, interpreter or nothing)"""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, given, python = part.partition("=")
        if not given and name not in _KINDS:
            raise argparse.ArgumentTypeError(
                f"'{name}' is none of {', '.join(_KINDS)}; an MPI of another environment is "
                f"{name or 'NAME'}=/path/to/its/python"
            )
        if not name or name == "ronde" or (given and not python):
            raise argparse.ArgumentTypeError(f"'{part}' is not like mpi or mpich=/path/to/python")
        if name in found:
            raise argparse.ArgumentTypeError(f"'{name}' is there twice")
        found[name] = python
    return list(found.items())
