"""What was measured as charts.

Collectives: time over size on logarithmic axes, a line for each library, the bound dashed. Compressors:
error over speed, a point for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from ..errors import UnavailableError
from .cells import Row

__all__ = ["FORMATS", "Point", "draw", "require", "trade_off"]

FORMATS = (".png", ".svg", ".pdf")


def require() -> Any:
    """matplotlib, which draws; `UnavailableError` if it is not there."""
    try:
        import matplotlib
    except ImportError:
        raise UnavailableError(
            "--plot needs matplotlib: install it with `pip install matplotlib`"
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


# ---- compressors ---------------------------------------------------------------------------------


class Point(NamedTuple):
    """A compressor."""

    name: str
    speed: float  # GB/s of values
    error: float  # relative to them
    unbiased: bool


def trade_off(
    points: Sequence[Point], exact: float, file: str, title: str, subtitle: str = ""
) -> None:
    """Writes the chart, in the format that the name of the file says. `exact`: the speed without
    compression, in GB/s; its error cannot be a point on a logarithmic axis. A line joins the compressors
    than which no other is both faster and more exact."""
    require()
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.2, 5), layout="constrained")
    best = _best(points)
    axis.plot([p.speed for p in best], [p.error for p in best], "-", color="0.8", zorder=1)
    for unbiased, label, fill in (
        (False, "with error feedback", "C0"),
        (True, "right on average by itself", "white"),
    ):
        own = [p for p in points if p.unbiased is unbiased]
        axis.plot(
            [p.speed for p in own],
            [p.error for p in own],
            "o",
            color="C0",
            markerfacecolor=fill,
            label=label,
        )
    axis.axvline(exact, linestyle="--", color="0.3", label=f"exact float32: {exact:.3g} GB/s")
    for scale in (axis.set_xscale, axis.set_yscale):
        scale("log")
    axis.margins(0.15)
    axis.xaxis.set_major_formatter(lambda speed, _: f"{speed:g}")
    axis.xaxis.set_minor_formatter(lambda speed, _: f"{speed:g}" if f"{speed:e}"[0] in "25" else "")
    axis.grid(True, which="both", color="0.93")
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel("effective speed (GB/s of float32 values)")
    axis.set_ylabel("relative error, without feedback (root of mean squares)")
    axis.legend(edgecolor="white", fontsize="small", loc="upper left", framealpha=1)
    better = "faster and more exact"
    axis.text(0.98, 0.03, better, transform=axis.transAxes, ha="right", color="0.5", style="italic")
    _label(figure, axis, points)
    if subtitle:
        figure.suptitle(subtitle, fontsize="small", color="0.35")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _best(points: Sequence[Point]) -> list[Point]:
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speed, p.error)):
        if not found or point.error < found[-1].error:
            found.append(point)
    return found


# Where a name may stand, in points from its own one, and which of its edges is there.
_LABEL_POSITIONS = [(6, 0, "left"), (-6, 0, "right")]
_LABEL_POSITIONS += [
    (x, y, side)
    for y in (11, -11, 24, -24, 37, -37)
    for x, side in ((0, "center"), (6, "left"), (-6, "right"))
]


def _label(figure: Any, axis: Any, points: Sequence[Point]) -> None:
    """Names the points, each at the first position where it hides nothing, or in the last."""
    from matplotlib.transforms import Bbox

    figure.canvas.draw()  # from now on it is known where everything is
    centres = [axis.transData.transform((p.speed, p.error)) for p in points]
    taken = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    taken.append(axis.get_legend().get_window_extent())
    for point in points:
        for x, y, side in _LABEL_POSITIONS:
            text = axis.annotate(
                point.name,
                (point.speed, point.error),
                (x, y),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize="small",
            )
            box = text.get_window_extent()
            free = not any(box.overlaps(other) for other in taken)
            if (free and _contains(axis.bbox, box)) or (x, y, side) == _LABEL_POSITIONS[-1]:
                taken.append(box)
                break
            text.remove()
        if y:
            line = {"arrowstyle": "-", "color": "0.6", "shrinkA": 4, "shrinkB": 3}
            axis.annotate(
                "",
                (point.speed, point.error),
                (x, y),
                textcoords="offset points",
                arrowprops=line,
                zorder=1,
            )


def _contains(outer: Any, inner: Any) -> bool:
    return bool(outer.contains(inner.x0, inner.y0) and outer.contains(inner.x1, inner.y1))
