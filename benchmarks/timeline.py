"""Draws a part of a timeline, for those who have no browser at hand.

python benchmarks/timeline.py trace.json trace.png --from 0.1 --to 0.2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ronde.bench import chart

COLOURS = {
    "agree": "0.75",
    "in machine": "C0",
    "wire": "C1",
    "pack": "C2",
    "unpack": "C8",
    "negotiate": "C3",
    "measure the link": "C4",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("timeline", type=Path)
    parser.add_argument("picture", help="a .png, .svg or .pdf")
    parser.add_argument("--from", dest="begin", type=float, default=0.0, help="seconds")
    parser.add_argument("--to", dest="end", type=float, default=float("inf"), help="seconds")
    args = parser.parse_args()
    events = json.loads(args.timeline.read_text())
    spans = [each for each in events if each["ph"] == "X"]
    origin = min(each["ts"] for each in spans) / 1e6
    spans = [each for each in spans if args.begin <= each["ts"] / 1e6 - origin < args.end]
    draw(spans, names_of(events), origin + args.begin, args.picture)


def names_of(events: list[dict[str, Any]]) -> dict[tuple[int, int], str]:
    """Of the tracks: by rank and number."""
    return {
        (each["pid"], each["tid"]): f"rank {each['pid']}, {each['args']['name']}"
        for each in events
        if each["name"] == "thread_name"
    }


def draw(
    spans: list[dict[str, Any]], names: dict[tuple[int, int], str], origin: float, file: str
) -> None:
    chart.require()
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    tracks = sorted({(each["pid"], each["tid"]) for each in spans})
    figure, axis = pyplot.subplots(figsize=(11, 0.5 * len(tracks) + 1.4), layout="constrained")
    for row, track in enumerate(tracks):
        for each in (each for each in spans if (each["pid"], each["tid"]) == track):
            begin, width = each["ts"] / 1e3 - origin * 1e3, each["dur"] / 1e3
            colour = COLOURS.get(each["name"])
            if colour is None:  # a call: around what it does
                axis.broken_barh([(begin, width)], (row - 0.45, 0.9), facecolors="0.93")
                axis.broken_barh(
                    [(begin, width)], (row - 0.45, 0.9), facecolors="none", edgecolors="0.6"
                )
            else:
                axis.broken_barh([(begin, width)], (row - 0.3, 0.6), facecolors=colour, zorder=3)
    axis.set_yticks(range(len(tracks)), [names[track] for track in tracks], fontsize="small")
    axis.invert_yaxis()
    axis.set_xlabel("milliseconds")
    axis.spines[["top", "right", "left"]].set_visible(False)
    used = {each["name"] for each in spans}
    patches = [Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in used]
    axis.legend(
        handles=patches,
        frameon=False,
        fontsize="small",
        ncols=len(patches),
        loc="lower right",
        bbox_to_anchor=(1, 1),
    )
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
