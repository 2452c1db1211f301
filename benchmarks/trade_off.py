"""Error against effective bandwidth, as a picture: what benchmarks/compression.py has measured.

python benchmarks/trade_off.py results/compression.json docs/images/compression.png
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ronde.bench import chart, compressors


def draw(report: dict[str, Any], file: str) -> None:
    """`report` is the content of compression.json: the compressors in `errors`, and `fp32`, in `times`."""
    size = report["megabytes"] / 1e3
    speeds = {name: size / statistics.median(times) for name, times in report["times"].items()}
    points = [
        chart.Point(name, speeds[name], error, compressors.make(name).unbiased)
        for name, error in report["errors"].items()
    ]
    what = f"allreduce of {report['megabytes']} MB of float32"
    title = f"{what}, {report['hosts']} emulated hosts, {report['rate']}"
    chart.trade_off(points, speeds["fp32"], file, title)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="compression.json")
    parser.add_argument("picture", help=f"to be written ({', '.join(chart.FORMATS)})")
    options = parser.parse_args(arguments)
    draw(json.loads(options.results.read_text()), options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
