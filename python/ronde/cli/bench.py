"""`ronde bench`: times collectives, checks their results, and compares Ronde with its peers."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from ..bench import chart, machine, table
from ..bench.cells import COLLECTIVES, DTYPES, OPS, Cell, Job, Row
from . import bench_arguments as arguments
from . import progress, quantities, ranks
from .console import wrapped

__all__ = ["add_parser", "run"]

# Of the kinds of peers (bench/peers), by the device.
_RONDE = {"cpu": "ronde", "cuda": "ronde_cuda"}

_EPILOG = """
examples:
  mpirun -n 8 ronde bench allreduce --sizes 8:256M
  ronde bench -np 8 allreduce,broadcast --sizes 8,1K,1M --dtype float32,float16
  mpirun -n 4 --hostfile hosts ronde bench allreduce --sizes 1M,64M --compression "int4,topk(0.001)"
  ronde bench -np 2 allreduce --sizes 8:64M:8 --bound --peers mpi,gloo=/path/to/venv/bin/python \\
      --json bench.json --plot bench.png
  ronde bench -np 2 allreduce --device cuda --peers nccl
  ronde bench compress --help
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="time collectives, check their results, compare with other libraries",
        description=wrapped(
            "Times collectives and checks their results, on the ranks that mpirun has started (`mpirun -n 8 "
            "ronde bench allreduce`) or with -np on ranks of its own. The columns are those of nccl-tests; "
            "docs/cli.md explains them."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "collectives",
        type=arguments.words(tuple(COLLECTIVES), everything="all"),
        metavar="COLLECTIVE",
        help=f"one or several of {', '.join(COLLECTIVES)}, joined by commas, or all; "
        "memory is the bound: every rank scales a vector of its own "
        "(`ronde bench compress` is a command of its own)",
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--sizes",
        type=arguments.sizes,
        default="8:64M",
        metavar="SIZES",
        help="bytes: from:to (doubling), from:to:factor, or a list like 8,1K,16M (default: 8:64M)",
    )
    what.add_argument(
        "--dtype",
        type=arguments.words(tuple(DTYPES)),
        default="float32",
        metavar="DTYPES",
        help=f"of {', '.join(DTYPES)} (default: float32)",
    )
    what.add_argument(
        "--op",
        type=arguments.words(OPS),
        default="sum",
        metavar="OPS",
        help=f"of {', '.join(OPS)} (default: sum)",
    )
    what.add_argument("--root", type=arguments.whole, default=0, metavar="RANK", help="default: 0")
    what.add_argument(
        "--buffers",
        type=arguments.words(("plain", "shared")),
        default="plain",
        metavar="BUFFERS",
        help="plain: arrays of NumPy, as programs pass them (default); shared: from ronde.empty; "
        "or both",
    )
    what.add_argument(
        "--device",
        choices=tuple(_RONDE),
        default="cpu",
        help="cuda: arrays in the memory of GPUs, of which each rank takes that of its local rank "
        "(default: cpu)",
    )
    what.add_argument(
        "--compression",
        type=arguments.compressions,
        default="none",
        metavar="NAMES",
        help="of allreduce, by names in ronde.compression: int8, topk(0.001), linear(bits=3) ..., "
        "against none and bf16 in turns; out of place, bandwidths are those of the bytes before it",
    )
    what.add_argument(
        "--out-of-place",
        action="store_true",
        help="allreduce and broadcast instead of allreduce_ and broadcast_",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--seconds",
        type=arguments.duration,
        default=0.2,
        metavar="TIME",
        help="of measuring for each size, at least (default: 0.2)",
    )
    how.add_argument(
        "--iterations", type=quantities.positive, metavar="N", help="instead of --seconds"
    )
    how.add_argument(
        "--warmup",
        type=arguments.whole,
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
        type=arguments.whole,
        default=0,
        metavar="K",
        help="keep K spinning processes running on each host meanwhile",
    )
    where = parser.add_argument_group("on what")
    ranks.add_arguments(where)
    where.add_argument(
        "--peers",
        type=arguments.peers,
        default=[],
        metavar="PEERS",
        help="compare with mpi, gloo, horovod, deepspeed, or with --device cuda nccl, in launches that "
        "alternate (needs -np); NAME=PYTHON is a peer of another environment, where any other name is "
        "an MPI",
    )
    where.add_argument(
        "--rounds",
        type=quantities.positive,
        default=3,
        metavar="N",
        help="of all libraries, or of all compressors, in turns (default: 3)",
    )
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="write all that was measured")
    out.add_argument("--plot", metavar="FILE", help="draw a chart (.png, .svg, .pdf)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        _require_sense(args)
    except ValueError as error:
        return ranks.refuse("ronde bench", error)
    if args.plot and not ranks.launched_as():
        chart.require()
    if args.peers:
        return _compare(args)
    if args.ranks:
        return ranks.start(args.ranks)
    return _measure(args)


def _require_sense(args: argparse.Namespace) -> None:
    if args.peers or args.ranks:
        ranks.require_no_launcher("--peers" if args.peers else "-np", "bench")
    if args.peers and not args.ranks:
        raise ValueError("--peers needs to know how many ranks to start: add -np N")
    if args.ranks and args.root >= args.ranks:
        raise ValueError(f"root {args.root} must be less than {args.ranks}, the number of ranks")
    _require_memory(args)
    ranks.require_files(args.json, args.plot)


def _require_memory(args: argparse.Namespace) -> None:
    """Raises `ValueError` for what does not go with arrays of the device."""
    on_gpu = args.device == "cuda"
    for label, _ in args.peers:
        if label == "nccl" and not on_gpu:
            raise ValueError("NCCL takes arrays in the memory of GPUs only: add --device cuda")
        if label != "nccl" and on_gpu:
            raise ValueError(f"with --device cuda the only peer is nccl, not {label}")
    if on_gpu and args.buffers != ["plain"]:
        raise ValueError("--buffers shared is memory of the host, and --device cuda that of GPUs")
    if on_gpu and args.bound:
        raise ValueError("--bound measures the host's memory, and --device cuda uses that of GPUs")


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
        rounds=1 if args.peers else args.rounds,
    )


def _cells(args: argparse.Namespace) -> Iterator[Cell]:
    for name in args.collectives:
        kind = COLLECTIVES[name]
        for dtype in args.dtype if name != "barrier" else args.dtype[:1]:
            for op in args.op if kind.reduces else args.op[:1]:
                for buffers in _buffers(args, name):
                    for size in args.sizes if name != "barrier" else (0,):
                        root = args.root if kind.rooted else 0
                        cell = Cell(name, size, dtype, op, root, not args.out_of_place, buffers)
                        if _is_compressed(args, cell):
                            # In place, the values would not stay what they are.
                            cell = replace(cell, in_place=False)
                            yield from (replace(cell, compression=c) for c in args.compression)
                        else:
                            yield cell


def _buffers(args: argparse.Namespace, collective: str) -> Sequence[str]:
    if args.device == "cuda":
        return ("cuda",)
    return args.buffers if collective != "barrier" else ("plain",)


def _is_compressed(args: argparse.Namespace, cell: Cell) -> bool:
    """Whether it is measured with several compressors in turns."""
    return cell.collective == "allreduce" and args.compression != ["none"]


# ---- on ranks that are there ---------------------------------------------------------------------


def _measure(args: argparse.Namespace) -> int:
    from ..bench import peers, worker

    job = _job(args)
    rows: list[Row] = []
    with peers.connect(_RONDE[args.device]) as peer:
        if args.root >= peer.size:
            if peer.rank == 0:
                print(
                    f"ronde bench: error: root {args.root} must be less than {peer.size}, "
                    "the number of ranks",
                    file=sys.stderr,
                )
            return 2
        if peer.rank != 0:
            worker.measure(peer, job, rows.append)
            return 0
        about = machine.describe() | _of_interest(args, peer.about)
        ranks.say(ranks.about(about, peer.size))
        worker.measure(peer, job, _Printer(args, job, rows))
        _keep(args, job, about, rows)
    return _status(rows)


class _Printer:
    """Keeps the rows, and prints them as soon as they are complete."""

    def __init__(self, args: argparse.Namespace, job: Job, rows: list[Row]) -> None:
        self._args, self._job, self._rows = args, job, rows
        self._title = ""
        self._turns: list[Row] = []  # of one size, so far
        self._width = max(map(len, args.compression))

    def __call__(self, row: Row) -> None:
        self._rows.append(row)
        if not _is_compressed(self._args, row.cell):
            bound = self._job.bound and row.cell.collective == "allreduce"
            self._head(
                table.title(row.cell, row.ranks),
                table.header(bound=bound, rooted=row.cell.kind.rooted),
            )
            ranks.say([table.line(row, bound=bound)])
            return
        self._turns.append(row)
        last = row.round == self._job.rounds - 1 or row.why_not
        if last and row.cell.compression == self._args.compression[-1]:
            title = table.compressed_title(row.cell, row.ranks)
            self._head(title, table.compressed_header(self._width))
            ranks.say(table.compressed(self._turns, self._width))
            self._turns = []

    def _head(self, title: str, columns: list[str]) -> None:
        if title != self._title:
            self._title = title
            ranks.say(["", title, *columns])


# ---- with peers ----------------------------------------------------------------------------------


def _compare(args: argparse.Namespace) -> int:
    from ..bench import rounds

    job = _job(args)
    entrants = [rounds.Entrant("ronde", _RONDE[args.device], sys.executable)]
    for label, python in args.peers:
        kind = label if label in arguments.PEERS else "mpi"
        entrants.append(rounds.Entrant(label, kind, python or sys.executable))
    about = machine.describe()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and clean up
    try:
        result = rounds.compare(entrants, job, args.ranks, args.rounds, progress=progress.show)
    finally:
        progress.show("")
    about |= _of_interest(args, result.about["ronde"])
    about |= {name: each["library"] for name, each in result.about.items() if name != "ronde"} | {
        name: f"left out: {why}" for name, why in result.left_out.items()
    }
    ranks.say(ranks.about(about, args.ranks))
    ranks.say(table.comparison(result.rows, bound=job.bound))
    _keep(args, job, about, result.rows)
    return _status(result.rows)


# ---- what comes out ------------------------------------------------------------------------------


def _of_interest(args: argparse.Namespace, about: dict[str, str]) -> dict[str, str]:
    """Without what matters only to compression."""
    compressed = args.compression != ["none"]
    return {name: value for name, value in about.items() if compressed or name != "wire"}


def _keep(args: argparse.Namespace, job: Job, about: dict[str, str], rows: Sequence[Row]) -> None:
    if args.json:
        method = {name: value for name, value in asdict(job).items() if name != "cells"}
        with open(args.json, "w") as file:
            measured = [asdict(row) | {"algbw": row.algbw, "busbw": row.busbw} for row in rows]
            json.dump({"about": about, "method": method, "rows": measured}, file, indent=1)
    if args.plot:
        chart.draw(rows, args.plot, f"{about['version']}, {about['CPU']}, {about['date']}")
    ranks.say_written(args.json, args.plot)


def _status(rows: Sequence[Row]) -> int:
    """1 if Ronde's own results are wrong."""
    return int(any(row.wrong for row in rows if row.peer == "ronde"))
