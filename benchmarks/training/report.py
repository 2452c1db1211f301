"""The tables and the chart of benchmarks/time_to_loss.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from ronde.bench import chart

from .trainers import AUTO, EXACT, HALF, HALF_AGAIN, exact_inside_machine, is_auto, is_torch, makers

UNLIMITED, MACHINE = "unlimited", "machine"
LINKS = ("100mbit", "1gbit", "10gbit", UNLIMITED, MACHINE)
NEAR = 2  # losses before and after one that are averaged with it
TARGET = 0.8  # of the steps of exact training, after which it has the loss to reach
TITLES = {UNLIMITED: "4 hosts, unlimited links", MACHINE: "inside one machine"}


@dataclass
class Run:
    """Training with one choice at one link."""

    points: list[tuple[float, float, float]]  # steps, held-out loss, seconds
    times: list[float]  # of a step, one of each round

    @property
    def final(self) -> float:
        return self.points[-1][1]

    def smooth(self) -> list[tuple[float, float, float]]:
        """Each loss the mean of those around it: from one to the next it moves more than choices differ."""
        losses = [low for _, low, _ in self.points]
        around = (losses[max(0, i - NEAR) : i + NEAR + 1] for i in range(len(losses)))
        return [
            (step, mean(near), seconds)
            for (step, _, seconds), near in zip(self.points, around, strict=True)
        ]

    def reaches(self, loss: float) -> tuple[float, float] | None:
        """The steps and seconds until the smooth loss is first as low; between two points on a straight
        line."""
        for (step, high, second), (next_step, low, next_second) in pairwise(self.smooth()):
            if low <= loss:
                part = (high - loss) / (high - low)
                return step + part * (next_step - step), second + part * (next_second - second)
        return None


def runs(found: Mapping[str, Any], link: str) -> dict[str, Run]:
    """Of all choices of which there are both a curve and times."""
    of_link = {}
    measured = found["times"][link]
    for name in sorted(measured, key=list(makers()).index):
        times = measured[name]
        curve = (
            EXACT if link == MACHINE and exact_inside_machine(name) and not is_auto(name) else name
        )
        points = found["curves"].get(curve, {}).get(link if is_auto(name) else UNLIMITED)
        if points and name != HALF_AGAIN:
            explored = found["made_with"]["explore"] if is_auto(name) else 0
            of_link[name] = Run(_with_seconds(points, median(times), explored), times)
    return of_link


def _with_seconds(
    points: Sequence[tuple[int, float, float]], step: float, explored: int
) -> list[tuple[float, float, float]]:
    """With the wall time: that of the curve itself while it explores, and then so many seconds a step."""
    before = max(seconds for at, _, seconds in points if at <= explored)
    return [
        (at, loss, took if at <= explored else before + (at - explored) * step)
        for at, loss, took in points
    ]


def write(found: Mapping[str, Any], loss: float | None, stem: Path) -> str:
    """Writes the tables (STEM.md) and the chart (STEM.png) of what there is, and returns the tables.

    `loss` is the one to reach, or None for what exact training has after `TARGET` of its steps.
    """
    links = sorted(found["times"], key=[*LINKS, *found["times"]].index)
    known = {link: runs(found, link) for link in links}
    exact = known.get(UNLIMITED, {}).get(EXACT)
    if exact is None:
        raise SystemExit("exact training at unlimited links has not been measured yet")
    if loss is None:
        loss = next(low for at, low, _ in exact.smooth() if at >= TARGET * exact.points[-1][0])
    reached = exact.reaches(loss)
    if reached is None:
        raise SystemExit(f"exact training ends at {exact.final:.3f} and does not reach {loss}")
    lines = [
        f"Held-out loss to reach: {loss:.3f} nats. Exact training at unlimited links needs "
        f"{reached[1]:.1f} s, and ends at {exact.final:.3f}."
    ]
    lines += [
        "",
        "Seconds to that loss, and how many times what exact training at unlimited links needs:",
        "",
    ]
    lines += _summary(known, reached[1], loss)
    for link, of_link in known.items():
        lines += ["", f"### {_title(link)}", ""]
        lines += _table(of_link, exact, loss)
        lines += ["", *_verdicts(of_link, found["times"][link], loss)]
    text = "\n".join(lines) + "\n"
    stem.with_suffix(".md").write_text(text)
    _draw(known, exact, loss, stem.with_suffix(".png"))
    return text


def _summary(known: Mapping[str, Mapping[str, Run]], base: float, loss: float) -> Iterator[str]:
    """All links side by side."""
    yield "".join(["| |", *(f" {_title(link)} |" for link in known)])
    yield "|---" * (len(known) + 1) + "|"
    for name in dict.fromkeys(name for of_link in known.values() for name in of_link):
        cells = []
        for of_link in known.values():
            reached = of_link[name].reaches(loss) if name in of_link else None
            text = f"{reached[1]:.1f} ({reached[1] / base:.2f})" if reached else ""
            cells.append("not reached" if name in of_link and not reached else text)
        yield f"| {name} | {' | '.join(cells)} |"


def _table(of_link: Mapping[str, Run], exact: Run, loss: float) -> Iterator[str]:
    yield (
        "| | steps to the loss | step (ms) | seconds to the loss | / exact, unlimited "
        "| final loss / exact |"
    )
    yield "|---|---|---|---|---|---|"
    base = exact.reaches(loss)
    for name, run in of_link.items():
        reached = run.reaches(loss)
        steps, seconds, ratio = "not reached", "", ""
        if reached and base:
            steps, seconds = f"{reached[0]:.0f}", f"{reached[1]:.1f}"
            ratio = f"{reached[1] / base[1]:.2f}"
        yield (
            f"| {name} | {steps} | {_spread([each * 1e3 for each in run.times], 0)} | {seconds} "
            f"| {ratio} | {run.final / exact.final:.3f} |"
        )


def _verdicts(
    of_link: Mapping[str, Run], times: Mapping[str, Sequence[float]], loss: float
) -> Iterator[str]:
    seconds = {name: reached[1] for name, run in of_link.items() if (reached := run.reaches(loss))}
    fixed = [name for name in seconds if not is_torch(name) and name != AUTO]
    peers = [name for name in seconds if is_torch(name)]
    if fixed:
        best = min(fixed, key=lambda name: seconds[name])
        others = [name for name in (AUTO, *peers) if name in seconds]
        ratios = [
            f"{name} takes {seconds[name] / seconds[best]:.2f} of its time" for name in others
        ]
        yield "; ".join([f"Soonest of Ronde's fixed choices: {best}", *ratios]) + "."
    for name in (HALF_AGAIN, AUTO):
        if name in times:
            halves = times[HALF][-len(times[name]) :]  # a choice may have been added later
            shares = [own / half for own, half in zip(times[name], halves, strict=True)]
            yield f"Step of {name} / step of {HALF}, of each round: {_spread(shares, 2)}."


def _title(link: str) -> str:
    return TITLES.get(link, f"4 hosts at {link}")


def _spread(values: Sequence[float], digits: int) -> str:
    middle, least, greatest = (
        f"{value:.{digits}f}" for value in (median(values), min(values), max(values))
    )
    return f"{middle} ({least} to {greatest})"


def _draw(known: Mapping[str, Mapping[str, Run]], exact: Run, loss: float, file: Path) -> None:
    """A panel for each link, a line for each choice."""
    chart.require()
    from matplotlib import pyplot, ticker
    from PIL import Image

    columns = 3
    lines = -(-(len(known) + 1) // columns)  # one more place, for the legend
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.2 * columns, 3.6 * lines), squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(name for of_link in known.values() for name in of_link))
    ours = [name for name in names if not is_torch(name)]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": pyplot.get_cmap("tab20" if len(ours) > 10 else "tab10")(number)}
        for number, name in enumerate(ours)
    }
    peers = [name for name in names if is_torch(name)]
    for number, name in enumerate(peers):
        styles[name] = {"color": "0.35", "linestyle": (0, (4.5 - number, 1 + number / 2))}
    if AUTO in styles:
        styles[AUTO] = {"color": "black", "linewidth": 2.2}
    handles: dict[str, Any] = {}
    for axis, (link, of_link) in zip(axes.flat, known.items(), strict=False):
        for name, run in of_link.items():
            [handles[name]] = _line(axis, run, **{"linewidth": 1.3, **styles[name]})
        [handles["fp32, unlimited links"]] = _line(
            axis, exact, color="black", linestyle="--", linewidth=1
        )
        axis.axhline(loss, color="0.8", linewidth=0.8, zorder=0)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set_ylim(0.97 * exact.final, 1.6 * exact.final)
        axis.set_xlim(left=0.1 * exact.points[-1][2])
        axis.grid(True, color="0.93")
        axis.set_title(_title(link), fontsize="medium")
        axis.set_xlabel("wall time (s)")
        axis.set_ylabel("held-out loss (nats)")
    for axis in list(axes.flat)[len(known) :]:
        axis.set_axis_off()
    list(axes.flat)[len(known)].legend(
        handles.values(), handles, loc="center", frameon=False, ncols=2, fontsize="medium"
    )
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    with Image.open(file) as picture:  # a palette takes a third of the bytes
        small = picture.convert("RGB").quantize(64)
    small.save(file, optimize=True)


def _line(axis: Any, run: Run, **style: Any) -> Any:
    shown = run.points[1:]  # a logarithm of seconds has no 0
    return axis.plot([each[2] for each in shown], [each[1] for each in shown], **style)
