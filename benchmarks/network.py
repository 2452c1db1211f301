"""Allreduce between hosts: Ronde, the MPI below it, and what the wire allows.

    python benchmarks/network.py --hosts 4 --rate 1gbit --also .venv-mpich/bin/python --output results

starts hosts as benchmarks/cluster does, and in launches that alternate between this Python and those
given by --also (one MPI each) times float32 allreduces in place, of Ronde and of the MPI in turns within
each launch. A time is the mean of a batch of calls on the slowest rank. Written are FOLDER/network.json
with all of them and FOLDER/network.md with the medians and, as median (least to greatest), the ratios of
times that were taken one after the other.

The wire's bound is 2n(H-1)/H bytes over each of H hosts' links at their full rate: headers, and what TCP
needs beyond, are not taken off. `stream` says how much of the rate plain TCP streams reach, all hosts
sending to the next one at the same time.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import launches
from cluster.hosts import bytes_per_second

SIZES = "8,1K,16K,256K,1M,4M,16M,64M"
BATCH_SECONDS = 0.1
STREAM_SECONDS = 0.3


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rate == "unlimited":
        parser.error("links need a rate, for the wire's bound")
    if options.measure:
        return _measure(options)
    launches.end_on_signals()
    return _drive(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=4, help="how many (4)")
    parser.add_argument("--per-host", type=int, default=1, help="ranks to a host (1)")
    parser.add_argument("--rate", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help=f"in bytes ({SIZES})")
    parser.add_argument("--rounds", type=int, default=5, help="in each launch (5)")
    parser.add_argument("--launches", type=int, default=2, help="of each Python (2)")
    parser.add_argument("--also", nargs="*", default=[], help="Pythons with another MPI")
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # this is a rank; the file for results
    return parser


def _sizes(text: str) -> list[int]:
    factors = {"K": 1 << 10, "M": 1 << 20}
    return [
        int(size[:-1]) * factors[size[-1]] if size[-1] in factors else int(size)
        for size in text.split(",")
    ]


# ---- one rank ------------------------------------------------------------------------------------


def _measure(options: argparse.Namespace) -> int:
    import numpy as np
    import ronde
    from mpi4py import MPI

    ronde.init()
    comm = MPI.COMM_WORLD
    peers = comm.Split(ronde.local_rank(), ronde.rank())  # one rank of each host
    streams = _streams(peers, options) if ronde.local_rank() == 0 else []
    ways: dict[str, Callable[[Any], Any]] = {
        "ronde": lambda array: ronde.allreduce_(array, op=ronde.Sum),
        "mpi": lambda array: comm.Allreduce(MPI.IN_PLACE, array),
    }

    def seconds(way: Callable[[Any], Any], array: Any, calls: int) -> float:
        comm.Barrier()
        start = time.perf_counter()
        for _ in range(calls):
            way(array)
        return comm.allreduce((time.perf_counter() - start) / calls, op=MPI.MAX)

    times = {}
    for size in options.sizes:
        array = np.zeros(size // 4, np.float32)
        first = {name: seconds(way, array, 3) for name, way in ways.items()}
        calls = max(1, min(200, int(BATCH_SECONDS / max(first.values()))))
        rows: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                rows[name].append(seconds(way, array, calls))
        times[size] = rows
    if comm.rank == 0:
        name = f"{MPI.get_vendor()[0]} {'.'.join(map(str, MPI.get_vendor()[1]))}"
        Path(options.measure).write_text(
            json.dumps({"mpi": name, "streams": streams, "times": times})
        )
    return 0


def _streams(comm: Any, options: argparse.Namespace) -> list[float]:
    """Bytes a second of the slowest host, several times."""
    total = int(bytes_per_second(options.rate) * STREAM_SECONDS)
    data, room = bytearray(1 << 20), bytearray(1 << 20)
    with socket.create_server(("", 0)) as server, socket.socket() as out:
        names = comm.allgather((_address(), server.getsockname()[1]))
        out.connect(names[(comm.rank + 1) % comm.size])
        inward, _ = server.accept()

        def send() -> None:
            for begin in range(0, total, len(data)):
                out.sendall(memoryview(data)[: total - begin])

        rates = []
        for _ in range(3):
            comm.Barrier()
            start = time.perf_counter()
            sender = threading.Thread(target=send)
            sender.start()
            left = total
            while left:
                left -= inward.recv_into(room, min(left, len(room)))
            sender.join()
            rates.append(total / max(comm.allgather(time.perf_counter() - start)))
        inward.close()
    return rates


def _address() -> str:
    """Of this host on the cluster's network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.77.0.254", 9))
        return str(probe.getsockname()[0])


# ---- all launches --------------------------------------------------------------------------------


@dataclass
class Results:
    """Of one MPI."""

    streams: list[float] = field(default_factory=list)
    times: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, found: dict[str, Any]) -> None:
        self.streams += found["streams"]
        for size, rows in found["times"].items():
            kept = self.times.setdefault(size, {"ronde": [], "mpi": []})
            for name, seconds in rows.items():
                kept[name] += seconds


def _drive(options: argparse.Namespace) -> int:
    results: dict[str, Results] = {}
    for _ in range(options.launches):
        for python in (sys.executable, *options.also):
            found = _launch(python, options)
            results.setdefault(found.pop("mpi"), Results()).add(found)
            print(f"{python}: done", file=sys.stderr, flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"hosts": options.hosts, "per_host": options.per_host, "rate": options.rate}
    report["results"] = {name: vars(result) for name, result in results.items()}
    (options.output / "network.json").write_text(json.dumps(report, indent=1))
    text = _markdown(results, options)
    (options.output / "network.md").write_text(text)
    print(text)
    return 0


def _launch(python: str, options: argparse.Namespace) -> dict[str, Any]:
    program = [python, __file__, "--rate", options.rate, "--rounds", str(options.rounds)]
    program += ["--sizes", ",".join(map(str, options.sizes)), "--measure"]
    start = launches.on_hosts(options.hosts, options.rate, options.per_host, python)
    found: dict[str, Any] = launches.reported(start, program)
    return found


def _markdown(results: dict[str, Results], options: argparse.Namespace) -> str:
    rate, hosts = bytes_per_second(options.rate), options.hosts
    lines = [
        f"{hosts} emulated hosts at {options.rate}, {options.per_host} rank(s) each: "
        "float32 allreduce in place, times in us",
        "",
    ]
    medians = {
        name: {size: statistics.median(rows["mpi"]) for size, rows in result.times.items()}
        for name, result in results.items()
    }
    for name, result in results.items():
        lines += [
            f"{name}: TCP streams reach {_spread([each / rate for each in result.streams])} "
            "of the rate",
            "",
            "| bytes | wire's bound | Ronde | MPI | bound / Ronde | MPI / Ronde | best MPI / Ronde |",
            "|---|---|---|---|---|---|---|",
        ]
        for size, rows in result.times.items():
            bound = 2 * int(size) * (hosts - 1) / hosts / rate
            ours, theirs = rows["ronde"], rows["mpi"]
            best = min(median[size] for median in medians.values())
            lines.append(
                f"| {_bytes(int(size))} | {_us(bound)} | {_us(statistics.median(ours))} "
                f"| {_us(statistics.median(theirs))} | {_spread([bound / each for each in ours])} "
                f"| {_spread([b / a for a, b in zip(ours, theirs, strict=True)])} "
                f"| {best / statistics.median(ours):.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"


def _bytes(size: int) -> str:
    for unit, factor in (("M", 1 << 20), ("K", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor} {unit}"
    return str(size)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
