"""`ronde explain`: which algorithms there are for a call, what they would cost, and their steps.

Needs neither MPI nor other ranks: a schedule is data, so it can be priced and drawn anywhere.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ronde import _core, compression
from ronde._text import printable
from ronde.compression.prediction import predict

from . import quantities
from .console import columns, wrapped
from .quantities import bytes_text, rate_text, time_text

ITEM_BYTES = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": 1,
}
COLLECTIVES = tuple(dict.fromkeys(row[0] for row in _core.algorithms()))
ROOTED = ("broadcast", "reduce", "gather", "scatter")
GRID_RANKS = 16

# What --bytes counts.
MEANING = {
    "allreduce": "the vector of each rank",
    "reducescatter": "the vector of each rank, before it is scattered",
    "allgather": "the vector gathered from all ranks",
    "broadcast": "the vector of the root",
    "reduce": "the vector of each rank",
    "gather": "the vector gathered from all ranks",
    "scatter": "the vector of the root, before it is scattered",
    "alltoall": "what each rank has for all ranks together",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="show the algorithms for a collective, their cost and their steps",
        description="Lists the algorithms for a collective, the one that Ronde would choose and then "
        "the others, cheapest first: the steps, messages and bytes of the busiest rank, and the time "
        "that a link of that speed would take.",
    )
    parser.add_argument(
        "collective",
        type=_collective,
        choices=COLLECTIVES,
        metavar="COLLECTIVE",
        help=", ".join(COLLECTIVES),
    )
    parser.add_argument(
        "--bytes",
        type=quantities.size,
        required=True,
        metavar="SIZE",
        help="8, 4K, 64MB, 1GiB: K, M and G are powers of 1024",
    )
    parser.add_argument(
        "--ranks", type=quantities.positive, required=True, metavar="N", help="the number of ranks"
    )
    parser.add_argument(
        "--dtype",
        choices=ITEM_BYTES,
        default="float32",
        metavar="DTYPE",
        help="float32 unless given",
    )
    parser.add_argument(
        "--root", type=int, default=0, metavar="RANK", help="for " + ", ".join(ROOTED)
    )
    parser.add_argument("--algorithm", metavar="NAME", help="show this one only")
    parser.add_argument(
        "--steps", action="store_true", help="draw what each rank does, step by step"
    )
    parser.add_argument(
        "--alpha",
        type=quantities.seconds,
        metavar="TIME",
        help="latency of a message: 20us, 1ms, 0.5s",
    )
    parser.add_argument(
        "--overhead",
        type=quantities.seconds,
        metavar="TIME",
        help="of each further message of a step",
    )
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument(
        "--link",
        type=quantities.bit_rate,
        dest="beta",
        metavar="RATE",
        help="speed: 100Mbit, 1Gbit, 25Gbps",
    )
    speed.add_argument(
        "--beta", type=quantities.per_byte, metavar="TIME", help="per byte on the wire: 1ns"
    )
    parser.add_argument(
        "--gamma", type=quantities.per_byte, metavar="TIME", help="per byte reduced: 0.2ns"
    )
    parser.set_defaults(run=run)


def _collective(text: str) -> str:
    return text.replace("reduce_scatter", "reducescatter")  # which others call it


def run(args: argparse.Namespace) -> int:
    try:
        call = _call_of(args)
        prices = _prices(call, args.algorithm)
        print("\n".join(_table(call, prices)))
        if args.algorithm is None and _is_compressible(call):
            print("\n" + "\n".join(_compressed(call)))
        if args.steps:
            chosen = next(price for price in prices if price.cost is not None)
            print("\n" + "\n".join(_drawing(call, chosen.algorithm)))
    except ValueError as error:
        print(f"ronde explain: error: {printable(error)}", file=sys.stderr)
        return 2
    return 0


class Call(NamedTuple):
    collective: str
    items: int
    dtype: str
    ranks: int
    root: int
    link: dict[str, float]


def _call_of(args: argparse.Namespace) -> Call:
    item = ITEM_BYTES[args.dtype]
    if args.bytes % item:
        raise ValueError(
            f"{args.bytes} bytes are not a whole number of {args.dtype} ({item} bytes each)"
        )
    most = 1 << (12 if args.collective == "alltoall" else 16)  # which are explained within seconds
    if args.ranks > most:
        raise ValueError(f"{args.ranks} ranks are too many: {args.collective} takes up to {most}")
    if not 0 <= args.root < args.ranks:
        raise ValueError(f"root {args.root} must be less than {args.ranks}, the number of ranks")
    if args.root and args.collective not in ROOTED:
        raise ValueError(f"{args.collective} has no root")
    link = _core.default_link()
    given = {name: vars(args)[name] for name in link if vars(args)[name] is not None}
    items = args.bytes // item
    return Call(args.collective, items, args.dtype, args.ranks, args.root, link | given)


# ---- the table -----------------------------------------------------------------------------------


class Price(NamedTuple):
    algorithm: str
    cost: _core.Cost | None  # None where this number of ranks is not supported


def _counts(collective: str, items: int, ranks: int) -> list[int]:
    row = [items // ranks + (rank < items % ranks) for rank in range(ranks)]
    return row * ranks if collective == "alltoall" else row


def _prices(call: Call, only: str | None) -> list[Price]:
    """The one that would be chosen first, then cheapest first; those that cannot run come last."""
    rows = [row for row in _core.algorithms() if row[0] == call.collective]
    if only is not None:
        rows = [row for row in rows if row[1] == only]
        if not rows:
            _core.schedule(call.collective, only, 0, [1])  # raises, and lists the names there are
    counts = _counts(call.collective, call.items, call.ranks)
    item = ITEM_BYTES[call.dtype]
    names = {name for _, name, *_ in rows}
    candidates = _core.candidates(call.collective, counts, call.root, item, **call.link)
    prices = [Price(name, cost) for name, cost in candidates if name in names]
    if not prices:
        raise ValueError(f"{only} needs a power of two of ranks, not {call.ranks}")
    return prices + [Price(name, None) for name in names - {price.algorithm for price in prices}]


def _table(call: Call, prices: Sequence[Price]) -> Iterator[str]:
    item = ITEM_BYTES[call.dtype]
    link = call.link
    root = f", root {call.root}" if call.collective in ROOTED else ""
    ranks = "1 rank" if call.ranks == 1 else f"{call.ranks} ranks"
    size = bytes_text(call.items * item)
    yield f"{call.collective} on {ranks}{root}: {size} of {call.dtype}, {MEANING[call.collective]}"
    yield (
        f"alpha {time_text(link['alpha'])} a step, "
        f"overhead {time_text(link['overhead'])} for each further message of a step,"
    )
    yield (
        f"beta {link['beta'] * 1e9:.3g} ns/byte{rate_text(link['beta'])}, "
        f"gamma {link['gamma'] * 1e9:.3g} ns/byte reduced"
    )
    yield ""
    yield (
        f"{'algorithm':<22}{'steps':>6}{'messages':>10}{'sent':>12}{'received':>12}{'predicted':>12}"
    )
    for index, (name, cost) in enumerate(prices):
        if cost is None:
            yield f"{name:<22}  needs a power of two of ranks"
            continue
        chosen = "  <- chosen" if index == 0 and len(prices) > 1 else ""
        yield (
            f"{name:<22}{cost.steps:>6}{cost.messages:>10}{bytes_text(cost.sent * item):>12}"
            f"{bytes_text(cost.received * item):>12}{time_text(cost.seconds):>12}{chosen}"
        )
    if (
        call.collective == "allreduce"
        and len(prices) > 1
        and (seconds := _piggybacked(call, prices[0]))
    ):
        yield ""
        yield wrapped(
            "A vector this short is sent with phase 0 (piggybacked), which precedes every collective: "
            f"{time_text(seconds)} in all."
        )


def _piggybacked(call: Call, plain: Price) -> float | None:
    """The seconds of an allreduce that is piggybacked on phase 0, with it, where that is faster."""
    assert plain.cost is not None
    phase_0 = math.ceil(math.log2(call.ranks)) * call.link["alpha"]
    size = call.items * ITEM_BYTES[call.dtype]
    seconds = _core.piggyback_seconds(size, call.ranks, _core.Link(**call.link))
    return seconds if seconds < phase_0 + plain.cost.seconds else None


def _is_compressible(call: Call) -> bool:
    return call.collective == "allreduce" and call.dtype == "float32" and call.ranks > 1


def _compressed(call: Call) -> Iterator[str]:
    """What `ronde.compression.auto` would predict, on ranks that share no memory."""
    exact = predict(None, [(call.items,)], call.ranks, call.link)
    half = predict(compression.bf16(), [(call.items,)], call.ranks, call.link)
    yield wrapped(
        "with compression, codecs as fast as one thread of this machine, the vector as a square matrix:"
    )
    yield (
        f"{'compressor':<22}{'sent':>12}{'wire':>12}{'codec':>12}{'predicted':>12}"
        f"{'/ exact':>10}{'/ bf16':>10}"
    )
    shared = compression.shared_scale()
    compressors = (
        None,
        compression.bf16(),
        compression.fp8(),
        compression.int8(),
        *([shared] if call.ranks <= shared.most_ranks else []),
        compression.int4(),
        compression.powersgd(32),
        compression.sign(),
        compression.topk(0.01),
        compression.topk(0.001),
    )
    side = max(1, math.isqrt(call.items))
    shapes = [(side, call.items // side), (call.items % side,)]
    for compressor in compressors:
        found = predict(compressor, shapes, call.ranks, call.link)
        ratios = [
            other.seconds / found.seconds if found.seconds else 1.0 for other in (exact, half)
        ]
        yield (
            f"{'exact' if compressor is None else repr(compressor).rpartition('.compression.')[2]:<22}"
            f"{bytes_text(round(found.wire_bytes)):>12}{time_text(found.wire):>12}"
            f"{time_text(found.codec):>12}{time_text(found.seconds):>12}"
            f"{ratios[0]:>10.2f}{ratios[1]:>10.2f}"
        )


# ---- the grid of steps ---------------------------------------------------------------------------


def _drawing(call: Call, algorithm: str) -> Iterator[str]:
    """Drawn for a vector that divides evenly: who talks to whom does not depend on its size."""
    core = 1 << (call.ranks.bit_length() - 1)
    items = call.ranks if call.collective == "alltoall" else call.ranks * core
    counts = _counts(call.collective, items, call.ranks)
    drawn = range(call.ranks) if call.ranks <= GRID_RANKS else range(call.root, call.root + 1)
    schedules = [
        _core.schedule(call.collective, algorithm, rank, counts, call.root) for rank in drawn
    ]
    part, parts = _unit(schedules, items, call.ranks, core)
    cells = [_cells(schedule, part, parts) for schedule in schedules]
    if call.ranks == 1:
        yield f"{algorithm}: one rank has nobody to talk to."
        return
    too_wide = f": a grid of {call.ranks} ranks is too wide, this is rank {call.root}"
    yield f"{algorithm}, step by step{'' if len(drawn) > 1 else too_wide}"
    yield from _legend(cells, parts)
    yield ""
    yield from _grid(drawn, cells, schedules[0].steps) if len(drawn) > 1 else _list(cells[0])


def _unit(
    schedules: Sequence[_core.Schedule], items: int, ranks: int, core: int
) -> tuple[int, int]:
    """(elements, number) of the chunks that ranges consist of: as many as ranks or core ranks."""
    ranges = [
        action[3] for schedule in schedules for action in schedule.actions if action[3][0] == "data"
    ]
    for parts in (ranks, core):
        part = max(items // parts, 1)
        if all(offset % part == count % part == 0 for _, offset, count in ranges):
            return part, parts
    return 1, items


class Cell(NamedTuple):
    sends: list[str]
    receives: list[str]


def _cells(schedule: _core.Schedule, part: int, parts: int) -> list[Cell]:
    cells = [Cell([], []) for _ in range(schedule.steps)]
    for verb, step, peer, (where, offset, count), _, _ in schedule.actions:
        first, last = offset // part, (offset + count) // part - 1
        chunks = f"{first}" if first == last else f"{first}-{last}"
        if first == 0 and last == parts - 1 and parts > 1:
            chunks = "*"
        if where == "scratch":
            chunks = "s"
        if verb == "send":
            cells[step].sends.append(f"{chunks}>{peer}")
        elif verb in ("recv", "recv_reduce"):
            cells[step].receives.append(f"{chunks}<{peer}{'+' * (verb == 'recv_reduce')}")
    return cells


def _legend(cells: Sequence[Sequence[Cell]], parts: int) -> Iterator[str]:
    signs = "".join(text for row in cells for cell in row for text in cell.sends + cell.receives)
    yield f"c>r sends chunk c of {parts} to rank r, c<r receives it from rank r"
    if "+" in signs:
        yield "c<r+ receives it and reduces"
    if "s" in signs:
        yield "s<r receives into scratch, which is reduced when the step is done"
    if "*" in signs:
        yield "* is all chunks"


def _list(cells: Sequence[Cell]) -> Iterator[str]:
    for step, cell in enumerate(cells):
        text = "  ".join(cell.sends + cell.receives)
        yield f"{step:<6}{wrapped(text, indent=6)}"


def _grid(ranks: range, cells: Sequence[Sequence[Cell]], steps: int) -> Iterator[str]:
    """Steps are rows of several lines: first what is sent, then what is received."""
    heads = [f"rank {rank}" for rank in ranks]
    texts = [text for row in cells for cell in row for text in cell.sends + cell.receives]
    width = max(len(text) for text in heads + texts) + 2

    fit = max((columns() - 6) // width, 1)  # ranks side by side; the others follow below

    def line(first: str, columns: Sequence[str]) -> str:
        return f"{first:<6}{''.join(f'{text:<{width}}' for text in columns)}".rstrip()

    for begin in range(0, len(ranks), fit):
        if begin:
            yield ""
        yield line("step", heads[begin : begin + fit])
        for step in range(steps):
            row = [cells_of_rank[step] for cells_of_rank in cells[begin : begin + fit]]
            lines = _stacked([c.sends for c in row]) + _stacked([c.receives for c in row])
            for index, texts in enumerate(lines):
                yield line("" if index else str(step), texts)


def _stacked(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    height = max(len(column) for column in columns)
    return [[c[i] if i < len(c) else "" for c in columns] for i in range(height)]
