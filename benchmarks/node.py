"""The tables and the chart of docs/performance.md for ranks of one machine.

    python benchmarks/node.py --peers mpi,mpich=/path/to/python,gloo=/path/to/python

Ronde and its peers are measured with `ronde bench`, in launches that alternate. What was measured is
kept in FOLDER/COLLECTIVE-DTYPE.json after each round, and not measured again: the program can be stopped
and called again, for more rounds or for some ranks and sizes only. Every call writes the tables (.md)
and the chart (.png) of all that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from cluster import launches
from ronde.bench import chart
from ronde.bench.cells import COLLECTIVES, DTYPES, Row
from ronde.bench.table import geometric_mean, ratios
from ronde.cli import quantities

SIZES = "8,1K,16K,256K,1M,4M,16M,64M"
BUFFERS = ("shared", "plain")


def main() -> int:
    args = arguments()
    launches.end_on_signals()
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{args.collective}-{args.dtype}{f'-busy{args.busy}' if args.busy else ''}"
    found = Results(stem.with_suffix(".json"))
    for ranks in args.ranks:
        for number in range(args.rounds):
            missing = [size for size in args.sizes if not found.has(ranks, number, size)]
            if missing and not args.report:
                print(f"{ranks} ranks, round {number + 1} of {args.rounds}", flush=True)
                found.add(number, *measure(args, ranks, missing, number))
    if not found.rows:
        print(f"node.py: nothing has been measured in {found.file}", file=sys.stderr)
        return 1
    text = "\n".join(report(found)) + "\n"
    stem.with_suffix(".md").write_text(text)
    about = found.about
    chart.draw(found.rows, f"{stem}.png", f"{about['version']}, {about['CPU']}")
    print(text)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="mpi", help="as for `ronde bench` (default: mpi)")
    parser.add_argument("--collective", choices=COLLECTIVES, default="allreduce")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--ranks", type=listed(quantities.positive), default="2,4,8", help="default: 2,4,8"
    )
    parser.add_argument(
        "--sizes", type=listed(quantities.size), default=SIZES, help=f"default: {SIZES}"
    )
    parser.add_argument("--buffers", default=",".join(BUFFERS), help="default: shared,plain")
    parser.add_argument("--rounds", type=quantities.positive, default=3, help="default: 3")
    parser.add_argument("--seconds", default="0.2", help="of each cell (default: 0.2)")
    parser.add_argument("--busy", type=int, default=0, help="spinning processes beside the ranks")
    parser.add_argument("--out", default="results", metavar="FOLDER", help="default: results")
    parser.add_argument("--report", action="store_true", help="measure nothing, only write")
    return parser.parse_args()


def listed(kind: Callable[[str], int]) -> Callable[[str], list[int]]:
    return lambda text: [kind(word) for word in text.split(",")]


# ---- measuring -----------------------------------------------------------------------------------


@dataclass
class Results:
    """What has been measured so far, in a file."""

    file: Path
    about: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.file.exists():
            kept = json.loads(self.file.read_text())
            self.about, self.rows = kept["about"], [Row.of(row) for row in kept["rows"]]

    def has(self, ranks: int, number: int, size: int) -> bool:
        return any(
            (row.ranks, row.round, row.cell.size) == (ranks, number, size) for row in self.rows
        )

    def add(self, number: int, about: dict[str, Any], rows: list[Row]) -> None:
        self.about |= about
        self.rows += rows
        kept = {"about": self.about, "rows": [asdict(row) for row in self.rows]}
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(kept, indent=1))
        os.replace(new, self.file)


def measure(
    args: argparse.Namespace, ranks: int, sizes: Sequence[int], number: int
) -> tuple[dict[str, Any], list[Row]]:
    """One round through all peers."""
    peers = args.peers.split(",")
    turned = peers[number % len(peers) :] + peers[: number % len(peers)]
    with tempfile.TemporaryDirectory(prefix="ronde-") as folder:
        file, log = Path(folder, "bench.json"), Path(folder, "log")
        command = [sys.executable, "-m", "ronde", "bench", args.collective]
        command += ["-np", str(ranks), "--sizes", ",".join(map(str, sizes)), "--rounds", "1"]
        command += ["--dtype", args.dtype, "--buffers", args.buffers, "--seconds", args.seconds]
        command += ["--busy", str(args.busy), "--peers", ",".join(turned), "--bound"]
        command += ["--json", str(file)]
        with log.open("w") as output:
            status = launches.run(launches.bound(*command), dict(os.environ), output)
        if not file.exists():
            raise SystemExit(status or 1)
        if status:
            raise SystemExit(f"{log.read_text()}\nronde bench ended with status {status}")
        measured = json.loads(file.read_text())
    rows = [Row.of(row | {"round": number}) for row in measured["rows"]]
    return measured["about"], rows


# ---- reporting -----------------------------------------------------------------------------------


@dataclass
class Verdict:
    """Ronde against the fastest peer in one cell."""

    size: int
    ours: float  # us, median over the rounds
    share: float | None  # of the memory bound
    peer: str
    theirs: float
    ratios: list[float]  # one for each round


def report(found: Results) -> Iterator[str]:
    yield from (f"- {name}: {value}" for name, value in found.about.items())
    for ranks in sorted({row.ranks for row in found.rows}):
        for buffers in BUFFERS:
            label = "ronde" if buffers == "plain" else f"ronde {buffers}"
            rows = [row for row in found.rows if row.ranks == ranks and not row.why_not]
            verdicts = list(judge(rows, label))
            if verdicts:
                yield from section(ranks, buffers, verdicts, rows)


def judge(rows: Sequence[Row], label: str) -> Iterator[Verdict]:
    for size in sorted({row.cell.size for row in rows}):
        block = [row for row in rows if row.cell.size == size]
        times = {
            name: median(row.time for row in block if row.label == name)
            for name in dict.fromkeys(row.label for row in block)
        }
        peers = {name: time for name, time in times.items() if not name.startswith("ronde")}
        if label not in times or not peers:
            continue
        bounds = [row.bound for row in block if row.bound]
        share = median(bounds) / times[label] if bounds else None
        peer = min(peers, key=lambda name: peers[name])
        spread = ratios(block, peer, label)
        if spread:
            yield Verdict(size, times[label], share, peer, peers[peer], spread)


def section(
    ranks: int, buffers: str, verdicts: Sequence[Verdict], rows: Sequence[Row]
) -> Iterator[str]:
    cell = rows[0].cell
    yield f"\n### {cell.collective} of {cell.dtype}, {ranks} ranks, {buffers} buffers\n"
    yield "| size | Ronde (us) | fastest peer | its time (us) | ratio: min | median | max | of the bound |"
    yield "|---|---|---|---|---|---|---|---|"
    for each in verdicts:
        share = f"{each.share:.2f}" if each.share else ""
        yield (
            f"| {quantities.bytes_text(each.size)} | {each.ours:.4g} | {each.peer} | {each.theirs:.4g} "
            f"| {min(each.ratios):.2f} | {median(each.ratios):.2f} | {max(each.ratios):.2f} | {share} |"
        )
    middle = geometric_mean([median(each.ratios) for each in verdicts])
    yield f"\nGeometric mean of the ratios: {middle:.2f}. Rounds: {rounds_of(rows)}."
    wrong = sum(row.wrong or 0 for row in rows)
    if wrong:
        yield f"\n**Wrong elements: {wrong}.**"


def rounds_of(rows: Sequence[Row]) -> int:
    return len({row.round for row in rows})


if __name__ == "__main__":
    sys.exit(main())
