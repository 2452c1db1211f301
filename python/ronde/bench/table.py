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

# All tables fit 100 columns, as long as names and times are usual ones. What is left out is in the JSON.
_ROOT = " root"
_COLUMNS = (
    f"#{'size':>9} {'count':>9} {'type':>8} {'redop':>7}{_ROOT}"
    f" | {'time':>7} {'algbw':>6} {'busbw':>6} {'#wrong':>6}"
    f" | {'p50':>6} {'p99':>6} {'max':>6}"
)
_UNITS = (
    f"#{'(B)':>9} {'(elem.)':>9} {'':>8} {'':>7}{'':{len(_ROOT)}}"
    f" | {'(us)':>7} {'(GB/s)':>6} {'(GB/s)':>6} {'':>6}"
    f" | {'(us)':>6} {'(us)':>6} {'(us)':>6}"
)
# What compression has to be faster than.
_BASES = ("none", "bf16")


def title(cell: Cell, ranks: int) -> str:
    """Above the rows of one collective."""
    place = ""
    if cell.collective in ("allreduce", "broadcast"):
        place = ", in place" if cell.in_place else ", out of place"
    how = "" if cell.compression == "none" else f", compression {cell.compression}"
    return f"# {cell.collective} on {_ranks(ranks)}{place}{how}, {cell.buffers} buffers"


def header(*, bound: bool, rooted: bool = False) -> list[str]:
    """The names of the columns and their units."""
    return [
        _rootless(_COLUMNS, rooted) + (f" | {'bound':>5}" if bound else ""),
        _rootless(_UNITS, rooted) + (f" | {'share':>5}" if bound else ""),
    ]


def _rootless(text: str, rooted: bool) -> str:
    before, bar, after = text.partition(" | ")
    return (before if rooted else before[: -len(_ROOT)]) + bar + after


def line(row: Row, *, bound: bool) -> str:
    """One row: of the bound, the share that it reaches."""
    if row.why_not:
        return f"{_what(row)} | {row.why_not}"
    share = _share([row.bound] if row.bound else [], row.time) if bound else ""
    return f"{_what(row)} | {_numbers(row)}{share}"


def _share(bounds: Sequence[float], time: float) -> str:
    return f" | {median(bounds) / time:5.2f}" if bounds else f" | {'-':>5}"


def _what(row: Row) -> str:
    cell = row.cell
    return (
        f"{row.bytes:>10} {row.count:>9} {cell.dtype if row.count else 'none':>8}"
        f" {cell.op if cell.kind.reduces else 'none':>7}"
        + (f" {cell.root:>4}" if cell.kind.rooted else "")
    )


def _numbers(row: Row) -> str:
    return (
        f"{_us(row.time):>7} {row.algbw:>6.2f} {row.busbw:>6.2f} {_wrong(row):>6}"
        f" | {_us(row.p50):>6} {_us(row.p99):>6} {_us(row.max):>6}"
    )


def _wrong(row: Row) -> str:
    return "-" if row.wrong is None else str(row.wrong)


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
    faster = "".join(f" | {f'faster than {base}':>17}" for base in _BASES)
    spread = f" | {'min   med   max':>17}" * len(_BASES)
    return [
        f"#{'size':>7} {'':<{width}} | {'time':>7} {'busbw':>6}"
        f" | {'wire':>8} {'fewer':>5} {'error':>6}{faster}",
        f"#{'(B)':>7} {'':<{width}} | {'(us)':>7} {'(GB/s)':>6}"
        f" | {'(B)':>8} {'':>5} {'':>6}{spread}",
    ]


def compressed(rows: Sequence[Row], width: int) -> Iterator[str]:
    """The rounds of cells that differ in compression alone: a line for each, of the median round; and by
    how much it is faster than the exact one and than bfloat16, round by round."""
    labels = {row.cell.compression: row.label for row in rows}
    for name, label in labels.items():
        row = _middle([row for row in rows if row.label == label])
        start = f"{row.bytes:>8} {name:<{width}}"
        if row.why_not:
            yield f"{start} | {row.why_not}"
            continue
        exact = next((each.wire for each in rows if each.cell.compression == "none"), None)
        wire = f"{row.wire:.0f}" if row.wire else "-"
        fewer = f"{exact / row.wire:.1f}" if exact and row.wire else "-"
        error = "-" if row.error is None else f"{row.error:.2g}"
        faster = "".join(f" | {_spread(ratios(rows, labels[base], label))}" for base in _BASES)
        yield (
            f"{start} | {_us(row.time):>7} {row.busbw:>6.2f}"
            f" | {wire:>8} {fewer:>5} {error:>6}{faster}"
        )


# ---- compressors by themselves -------------------------------------------------------------------


def codec_header(names: Sequence[str]) -> list[str]:
    """The names of the columns and their units, for compressors of these names."""
    width = max(map(len, names))
    return [
        f"#{'':<{width - 1}} {'fewer':>5} | {'encode':>6} {'feedback':>8} {'share':>5}"
        f" | {'decode':>6} {'add':>6} {'share':>5}"
        f" | {'error':>7} {'bias':>8} {'+-':>6} | {'link':>5}",
        f"#{'':<{width - 1}} {'bytes':>5} | {'(GB/s)':>6} {'(GB/s)':>8} {'':>5}"
        f" | {'(GB/s)':>6} {'(GB/s)':>6} {'':>5}"
        f" | {'':>7} {'':>8} {'':>6} | {'GB/s':>5}",
    ]


def codec_line(row: CodecRow, names: Sequence[str], link: float) -> str:
    """One of several compressors, and what comes through a link of so many GB/s."""
    encoding = median(row.shares("pass", "feedback"))
    adding = median(row.shares("touch", "add"))
    spread = f"{row.bias_error:.1g}" if row.bias_error else "-"
    return (
        f"{row.compressor:<{max(map(len, names))}} {row.fewer:>5.1f}"
        f" | {_speed(row, 'encode'):>6} {_speed(row, 'feedback'):>8} {encoding:>5.2f}"
        f" | {_speed(row, 'decode'):>6} {_speed(row, 'add'):>6} {adding:>5.2f}"
        f" | {row.error:>7.2g} {row.bias:>8.2g} {spread:>6} | {row.over(link):>5.3g}"
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
            yield from _comparison_header(above, ours, width, bound, cell.kind.rooted)
        bounds = [row.bound for row in block if row.bound]
        for label in dict.fromkeys(row.label for row in block):
            own = [row for row in block if row.label == label]
            middle = _middle(own)
            if middle.why_not:
                yield f"{_what(middle)} {label:<{width}} | {middle.why_not}"
                continue
            numbers = f"{_us(middle.time):>7} {middle.busbw:>6.2f} {_wrong(middle):>6}"
            share = _share(bounds, middle.time) if bound else ""
            columns = "".join(f" | {_spread(ratios(block, label, our))}" for our in ours)
            yield f"{_what(middle)} {label:<{width}} | {numbers}{share}{columns}"


def _comparison_header(
    above: str, ours: Sequence[str], width: int, bound: bool, rooted: bool
) -> Iterator[str]:
    yield ""
    yield above
    names, units = (text.partition(" | ")[0] for text in header(bound=bound, rooted=rooted))
    share = [f" | {name:>5}" if bound else "" for name in ("bound", "share")]
    ratios = "".join(f" | {f'time / {our}':>17}" for our in ours)
    spread = f" | {'min   med   max':>17}" * len(ours)
    yield f"{names} {'library':<{width}} | {'time':>7} {'busbw':>6} {'#wrong':>6}{share[0]}{ratios}"
    yield f"{units} {'':<{width}} | {'(us)':>7} {'(GB/s)':>6} {'':>6}{share[1]}{spread}"


def _spread(ratios: Sequence[float]) -> str:
    """Of three digits each."""
    if not ratios:
        return f"{'-':>17}"
    return " ".join(f"{_three_digits(x):>5}" for x in (min(ratios), median(ratios), max(ratios)))


def _three_digits(x: float) -> str:
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:.0f}"


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
