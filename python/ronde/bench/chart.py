"""Rows as a chart: time over size on logarithmic axes, a line for each library, the bound dashed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from ..errors import UnavailableError
from .cells import Row

__all__ = ["FORMATS", "draw", "require"]

FORMATS = (".png", ".svg", ".pdf")


def require() -> Any:
    """matplotlib, which draws; `UnavailableError` if it is not there."""
    try:
        import matplotlib
    except ImportError:
        raise UnavailableError(
            "--plot needs matplotlib: pip install 'ronde[bench]', or pip install matplotlib"
        ) from None
    matplotlib.use("agg")  # needs no display
    return matplotlib


def draw(rows: Sequence[Row], file: str, subtitle: str = "") -> None:
    """Writes the chart, in the format that the name of the file says. One panel for each collective,
    dtype, op and number of ranks."""
    require()
    from matplotlib import pyplot

    panels: dict[str, list[Row]] = {}
    for row in rows:
        if not row.why_not and row.bytes:
            panels.setdefault(_panel(row), []).append(row)
    if not panels:
        raise ValueError(f"there is nothing to draw in {file}")
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(5.6 * columns, 4.4 * lines), squeeze=False, layout="constrained"
    )
    colours = {label: f"C{i}" for i, label in enumerate(dict.fromkeys(row.label for row in rows))}
    for axis, (name, panel) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(axis, name, panel, colours)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    if subtitle:
        figure.suptitle(subtitle, fontsize="small", color="0.35")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _panel(row: Row) -> str:
    op = f", {row.cell.op}" if row.cell.kind.reduces else ""
    return f"{row.cell.collective} of {row.cell.dtype}{op}, {row.ranks} ranks"


def _draw_panel(axis: Any, name: str, rows: Sequence[Row], colours: dict[str, str]) -> None:
    for label, colour in colours.items():
        points = _points([(row.bytes, row.time) for row in rows if row.label == label])
        if points:
            ours = label.startswith("ronde")
            axis.plot(
                *zip(*points, strict=True),
                label=label,
                color=colour,
                marker="o",
                markersize=4 if ours else 3,
                linewidth=2.2 if ours else 1.2,
            )
    bound = _points([(row.bytes, row.bound) for row in rows if row.bound])
    if bound:
        axis.plot(*zip(*bound, strict=True), "--", color="0.3", label="memory bound")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    sizes = sorted({row.bytes for row in rows})
    shown = sizes[:: -(-len(sizes) // 10)]
    axis.set_xticks(shown, [_short(size) for size in shown])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda time, _: _time(time))
    axis.grid(True, color="0.9")
    axis.set_title(name, fontsize="medium")
    axis.set_xlabel("size (bytes)")
    axis.set_ylabel("time of a call")
    axis.legend(frameon=False, fontsize="small")


def _points(pairs: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The median of the rounds, by size."""
    sizes = sorted({size for size, _ in pairs})
    return [(size, median(time for s, time in pairs if s == size)) for size in sizes]


def _short(size: int) -> str:
    for power, unit in ((3, "G"), (2, "M"), (1, "K")):
        if size >= 1024**power:
            return f"{size / 1024**power:.4g}{unit}"
    return str(size)


def _time(microseconds: float) -> str:
    for factor, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= factor:
            return f"{microseconds / factor:g} {unit}"
    return f"{microseconds:g} us"
