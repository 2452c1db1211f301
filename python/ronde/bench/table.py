"""Rows as text: the columns of nccl-tests, and what the ranks and rounds add to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from .cells import Cell, Row
from .codecs import CodecRow

__all__ = [
    "codec_bounds",
    "codec_header",
    "codec_line",
    "comparison",
    "compressed",
    "compressed_header",
    "compressed_title",
    "geometric_mean",
    "header",
    "line",
    "ratios",
    "title",
]

_COLUMNS = (
    f"#{'size':>11} {'count':>11} {'type':>9} {'redop':>8} {'root':>5}"
    f" | {'time':>9} {'algbw':>7} {'busbw':>7} {'#wrong':>6}"
    f" | {'p50':>9} {'p99':>9} {'max':>9}"
)
# What compression has to be faster than.
_BASES = ("none", "bf16")

_UNITS = (
    f"#{'(B)':>11} {'(elements)':>11} {'':>9} {'':>8} {'':>5}"
    f" | {'(us)':>9} {'(GB/s)':>7} {'(GB/s)':>7} {'':>6}"
    f" | {'(us)':>9} {'(us)':>9} {'(us)':>9}"
)


def title(cell: Cell, ranks: int) -> str:
    """Above the rows of one collective."""
    place = ""
    if cell.collective in ("allreduce", "broadcast"):
        place = ", in place" if cell.in_place else ", out of place"
    how = "" if cell.compression == "none" else f", compression {cell.compression}"
    return f"# {cell.collective} on {_ranks(ranks)}{place}{how}, {cell.buffers} buffers"


def header(*, bound: bool) -> list[str]:
    """The names of the columns and their units."""
    return [
        _COLUMNS + (f" | {'bound':>6}" if bound else ""),
        _UNITS + (f" | {'share':>6}" if bound else ""),
    ]


def line(row: Row, *, bound: bool) -> str:
    """One row: of the bound, the share that it reaches."""
    if row.why_not:
        return f"{_what(row)} | {row.why_not}"
    share = _share([row.bound] if row.bound else [], row.time) if bound else ""
    return f"{_what(row)} | {_numbers(row)}{share}"


def _share(bounds: Sequence[float], time: float) -> str:
    return f" | {median(bounds) / time:6.2f}" if bounds else f" | {'-':>6}"


def _what(row: Row) -> str:
    cell = row.cell
    return (
        f"{row.bytes:>12} {row.count:>11} {cell.dtype if row.count else 'none':>9}"
        f" {cell.op if cell.kind.reduces else 'none':>8}"
        f" {cell.root if cell.kind.rooted else -1:>5}"
    )


def _numbers(row: Row) -> str:
    wrong = "-" if row.wrong is None else row.wrong
    return (
        f"{_us(row.time):>9} {row.algbw:>7.2f} {row.busbw:>7.2f} {wrong:>6}"
        f" | {_us(row.p50):>9} {_us(row.p99):>9} {_us(row.max):>9}"
    )


def _us(time: float) -> str:
    return f"{time:.2f}" if time < 1000 else f"{time:.0f}"


def _ranks(ranks: int) -> str:
    return "1 rank" if ranks == 1 else f"{ranks} ranks"


# ---- compression ---------------------------------------------------------------------------------


def compressed_title(cell: Cell, ranks: int) -> str:
    """Above the rows of cells that differ in compression alone."""
    return f"{title(replace(cell, compression='none'), ranks)}, {cell.op} of {cell.dtype}"


def compressed_header(width: int) -> list[str]:
    """The names of the columns and their units, for names of compressors of at most that width."""
    faster = "".join(f" | {f'faster than {base}':>20}" for base in _BASES)
    spread = f" | {'min  median     max':>20}" * len(_BASES)
    return [
        f"#{'size':>11} {'':<{width}} | {'time':>9} {'algbw':>7} {'busbw':>7}"
        f" | {'wire':>11} {'fewer':>6} {'error':>8}{faster}",
        f"#{'(B)':>11} {'':<{width}} | {'(us)':>9} {'(GB/s)':>7} {'(GB/s)':>7}"
        f" | {'(B a rank)':>11} {'':>6} {'':>8}{spread}",
    ]


def compressed(rows: Sequence[Row], width: int) -> Iterator[str]:
    """The rounds of cells that differ in compression alone: a line for each, of the median round; and by
    how much it is faster than the exact one and than bfloat16, round by round."""
    labels = {row.cell.compression: row.label for row in rows}
    for name, label in labels.items():
        row = _middle([row for row in rows if row.label == label])
        start = f"{row.bytes:>12} {name:<{width}}"
        if row.why_not:
            yield f"{start} | {row.why_not}"
            continue
        exact = next((each.wire for each in rows if each.cell.compression == "none"), None)
        wire = f"{row.wire:.0f}" if row.wire else "-"
        fewer = f"{exact / row.wire:.1f}" if exact and row.wire else "-"
        error = "-" if row.error is None else f"{row.error:.2g}"
        faster = "".join(f" | {_spread(ratios(rows, labels[base], label))}" for base in _BASES)
        yield (
            f"{start} | {_us(row.time):>9} {row.algbw:>7.2f} {row.busbw:>7.2f}"
            f" | {wire:>11} {fewer:>6} {error:>8}{faster}"
        )


# ---- compressors by themselves -------------------------------------------------------------------


def codec_header(names: Sequence[str]) -> list[str]:
    """The names of the columns and their units, for compressors of these names."""
    width = max(map(len, names))
    spread = f"{'min  median     max':>20}"
    return [
        f"#{'':<{width}} {'fewer':>6} | {'encode':>7} {'feedback':>8} {'share of a pass':>20}"
        f" | {'decode':>7} {'add':>7} {'share of a pass':>20}"
        f" | {'error':>8} {'bias':>9} {'+-':>7} | {'over link':>9}",
        f"#{'':<{width}} {'bytes':>6} | {'(GB/s)':>7} {'(GB/s)':>8} {spread}"
        f" | {'(GB/s)':>7} {'(GB/s)':>7} {spread}"
        f" | {'':>8} {'':>9} {'':>7} | {'(GB/s)':>9}",
    ]


def codec_line(row: CodecRow, names: Sequence[str], link: float) -> str:
    """One of several compressors, and what comes through a link of so many GB/s."""
    encoding = _spread(row.shares("pass", "feedback"))
    adding = _spread(row.shares("touch", "add"))
    spread = f"{row.bias_error:.1g}" if row.bias_error else "-"
    return (
        f" {row.compressor:<{max(map(len, names))}} {row.fewer:>6.1f}"
        f" | {_speed(row, 'encode'):>7} {_speed(row, 'feedback'):>8} {encoding}"
        f" | {_speed(row, 'decode'):>7} {_speed(row, 'add'):>7} {adding}"
        f" | {row.error:>8.2g} {row.bias:>9.2g} {spread:>7} | {row.over(link):>9.3g}"
    )


def _speed(row: CodecRow, call: str) -> str:
    speed = row.speed(call)
    return f"{speed:.2f}" if speed < 1000 else f"{speed:.0f}"


def codec_bounds(rows: Sequence[CodecRow]) -> Iterator[str]:
    """How fast memory was in the same run."""
    two, one = (median(row.speed(name) for row in rows) for name in ("pass", "touch"))
    yield f"# a pass that reads two vectors and writes one: {two:.2f} GB/s; reads and writes one: {one:.2f}"


# ---- several libraries ---------------------------------------------------------------------------


def comparison(rows: Sequence[Row], *, bound: bool) -> Iterator[str]:
    """A block for each cell with a line for each library: the median round, and by how much it is slower
    than Ronde, round by round: the smallest, the middle and the greatest ratio."""
    blocks: dict[Cell, list[Row]] = {}
    for row in rows:
        blocks.setdefault(row.cell.exact, []).append(row)
    ours = list(dict.fromkeys(row.label for row in rows if row.peer == "ronde"))
    width = max(len(row.label) for row in rows)
    seen = ""
    for cell, block in blocks.items():
        above = title(cell, block[0].ranks).rpartition(",")[0]
        if above != seen:
            seen = above
            yield from _comparison_header(above, ours, width, bound)
        bounds = [row.bound for row in block if row.bound]
        for label in dict.fromkeys(row.label for row in block):
            own = [row for row in block if row.label == label]
            middle = _middle(own)
            if middle.why_not:
                yield f"{_what(middle)} {label:<{width}} | {middle.why_not}"
                continue
            share = _share(bounds, middle.time) if bound else ""
            columns = "".join(f" | {_spread(ratios(block, label, our))}" for our in ours)
            yield f"{_what(middle)} {label:<{width}} | {_numbers(middle)}{share}{columns}"


def _comparison_header(above: str, ours: Sequence[str], width: int, bound: bool) -> Iterator[str]:
    yield ""
    yield above
    for text, names in zip(
        header(bound=bound),
        ([f"time / {our}" for our in ours], ["min  median     max"] * len(ours)),
        strict=True,
    ):
        left, _, right = text.partition(" | ")
        columns = "".join(f" | {name:>20}" for name in names)
        yield f"{left} {'library' if names[0].startswith('time') else '':<{width}} | {right}{columns}"


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return f"{'-':>20}"
    return f"{min(ratios):>6.2f} {median(ratios):>6.2f} {max(ratios):>6.2f}"


def _middle(rows: Sequence[Row]) -> Row:
    """The round of the median time."""
    return sorted(rows, key=lambda row: row.time)[(len(rows) - 1) // 2]


def ratios(block: Iterable[Row], label: str, reference: str) -> list[float]:
    """Time of one library over that of another, for each round that has both; rows of one cell."""
    times = {(row.label, row.round): row.time for row in block if not row.why_not}
    rounds = sorted({number for _, number in times})
    return [
        times[label, number] / times[reference, number]
        for number in rounds
        if (label, number) in times and (reference, number) in times
    ]


def geometric_mean(numbers: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, numbers)) / len(numbers))
