"""Training over links of several rates: loss against wall time, exact and with each compression.

    python benchmarks/time_to_loss.py --output results

Four ranks train a language model of bytes, of 10.3 million parameters, on the modules of Python's own
library (benchmarks/training), with momentum SGD: on four emulated hosts whose links have no limit, 100
Mbit/s, 1 Gbit/s and 10 Gbit/s, and inside one machine. With torch installed, DistributedDataParallel over
Gloo trains the same model from the same parameters with the same batches, without a hook, with its fp16
hook, and with Ronde's hook.

What synchronous training computes does not depend on how fast the links are. So for each choice the loss
after each step is found once, on hosts whose links have no limit; and the time of a step at each link is
measured in turns, all choices in the same processes, round after round. Wall time is steps times the median
of a step. The exception is `auto`, which depends on the link: it trains anew at each; what its first
--explore steps took is counted as it was, and only then the step of the rounds. Inside one machine Ronde
compresses nothing (but for DGC, which acts on each rank), so there its choices have the exact curve.

Losses are of held-out files; evaluating them is not in the times, encoding and decoding are. Written are:

    FOLDER/time_to_loss.json   all that was measured. What is there is not measured again, so the program
                               can be stopped at any time and done in pieces (--links, --choices); remove
                               it to begin anew
    FOLDER/time_to_loss.md     for each link and choice: steps and seconds until the loss was reached, and
                               the final loss, against exact training at unlimited links
    FOLDER/time_to_loss.png    loss against wall time

It needs `pip install matplotlib`, about 10 GB of memory, and about an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import launches
from training import report
from training.trainers import EXACT, HALF, HALF_AGAIN, is_auto, makers

LINKS = ",".join(report.LINKS)
RANKS = 4


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--links", type=_list, default=LINKS, help=f"which ({LINKS})")
    parser.add_argument("--choices", type=_list, help="which (all); fp32 and bf16 always are")
    parser.add_argument("--steps", type=int, default=250, help="of training (250)")
    parser.add_argument("--every", type=int, default=5, help="steps from one loss to the next (5)")
    parser.add_argument("--batch", type=int, default=64, help="examples of a rank (64)")
    parser.add_argument("--rate", type=float, default=0.1, help="of SGD at the start (0.1)")
    parser.add_argument("--rounds", type=int, default=5, help="of step times (5)")
    parser.add_argument("--explore", type=int, default=40, help="steps in which auto explores (40)")
    parser.add_argument(
        "--loss", type=float, help="to reach (what exact has after 80%% of --steps)"
    )
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument("--report", action="store_true", help="only the table and the chart again")
    options = parser.parse_args(arguments)
    launches.end_on_signals()
    options.output.mkdir(parents=True, exist_ok=True)
    study = Study(options)
    if not options.report:
        study.measure()
    print(report.write(study.found, options.loss, options.output / "time_to_loss"))
    return 0


def _list(text: str) -> list[str]:
    return text.split(",")


class Study:
    """What has been measured, in a file, and the measuring of what is missing."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._file = options.output / "time_to_loss.json"
        names = ("steps", "every", "batch", "rate", "explore")
        made = {name: getattr(options, name) for name in names}
        self.found: dict[str, Any] = {"made_with": made, "curves": {}, "times": {}}
        if self._file.exists():
            self.found = json.loads(self._file.read_text())
            if self.found["made_with"] != made:
                raise SystemExit(
                    f"{self._file} was made with {self.found['made_with']}, not {made}; "
                    "remove it to begin anew"
                )

    def measure(self) -> None:
        names = self._names()
        for name in names:
            for link in self._options.links if is_auto(name) else [report.UNLIMITED]:
                if name != HALF_AGAIN and link not in self._curves(name):
                    self._curves(name)[link] = self._launch(link, "curve", name)
                    self._save()
        for link in self._options.links:
            known = self.found["times"].setdefault(link, {})
            rounds = min(len(known.get(name, [])) for name in names)
            if rounds < self._options.rounds:
                missing = str(self._options.rounds - rounds)
                for name, seconds in self._launch(
                    link, "times", ",".join(names), "--rounds", missing
                ).items():
                    known[name] = known.get(name, []) + seconds
                self._save()

    def _names(self) -> list[str]:
        """Of the choices asked for, and those that all others are compared with."""
        known, chosen = makers(), self._options.choices
        if unknown := set(chosen or ()) - known.keys():
            raise SystemExit(f"no choices are {', '.join(unknown)}; there are {', '.join(known)}")
        always = (EXACT, HALF, HALF_AGAIN)
        return [name for name in known if chosen is None or name in (*chosen, *always)]

    def _curves(self, name: str) -> dict[str, Any]:
        """Of a choice, by link."""
        curves: dict[str, Any] = self.found["curves"].setdefault(name, {})
        return curves

    def _save(self) -> None:
        """Never half a file."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.found, indent=1))
        new.replace(self._file)

    def _launch(self, link: str, job: str, *words: str) -> Any:
        """What the ranks of benchmarks/training/rank.py find."""
        print(f"{link}: {' '.join([job, *words])}", file=sys.stderr, flush=True)
        program = [sys.executable, "-m", "training.rank", job, *words]
        for name, value in self.found["made_with"].items():
            program += [f"--{name}", str(value)]
        start = [sys.executable, "-m", "ronde", "run", "-np", str(RANKS)]
        if link != report.MACHINE:
            start = launches.on_hosts(RANKS, link)
        return launches.reported(start, [*program, "--output"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
