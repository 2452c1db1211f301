"""Compressed allreduce between hosts, against exact and against what wire and codec allow.

    python benchmarks/compression.py --hosts 4 --rate 1gbit --megabytes 100 --output results

starts hosts as benchmarks/cluster does, one rank each, and times allreduces of normal float32 values, exact
and with each compressor in turns, or with those of --compressors (with error feedback, unless they are right
on average). A time is that of one call on the slowest rank. Written are FOLDER/compression.json and
FOLDER/compression.md: for each compressor the median time, the bandwidth in bytes before compression, and as
median (least to greatest)

    share       of what is possible: the longer of what the wire needs at its full rate for what the rank
                that sends most has sent in a first call, and of the codec alone, all ranks encoding and
                decoding at once what they have to
    / fp32      exact time over this one's, of the same round; / bf16 alike
    error       of the first result without feedback, relative to the exact one (root of mean squares)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster import launches
from cluster.hosts import bytes_per_second

NAMES = ("bf16", "fp16", "fp8", "int8", "int4", "qsgd", "ternary", "sign")
NAMES += ("topk(0.01)", "topk(0.001)", "randomk(0.01)", "shared_scale(6)")
CUT = 1024  # vectors are cut at multiples of it, which all grains divide


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=4, help="how many (4)")
    parser.add_argument("--rate", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument("--megabytes", type=int, default=100, help="of float32 values (100)")
    parser.add_argument("--rounds", type=int, default=5, help="of all compressors in turns (5)")
    parser.add_argument(
        "--launches", type=int, default=1, help="of the hosts, one after another (1)"
    )
    parser.add_argument(
        "--compressors", default=",".join(NAMES), help="which, as ronde bench takes them (all)"
    )
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # this is a rank; the file for results
    options = parser.parse_args(arguments)
    if options.measure:
        return _measure(options)
    launches.end_on_signals()
    return _drive(options)


def _measure(options: argparse.Namespace) -> int:
    import numpy as np
    import ronde
    from mpi4py import MPI
    from ronde import _core
    from ronde.bench.compressors import make, split

    ronde.init()
    comm = MPI.COMM_WORLD
    count = options.megabytes * 1_000_000 // 4
    values = np.random.default_rng(ronde.rank()).standard_normal(count, np.float32)
    result = np.empty_like(values)
    exact = ronde.allreduce(values, ronde.Sum)
    cuts = [
        min(-(-count // CUT) * place // comm.size * CUT, count) for place in range(comm.size + 1)
    ]
    spans = [slice(*cut) for cut in pairwise(cuts)]
    nonzero = _core.Compressor.threshold(float(np.finfo(np.float32).tiny))
    members = ronde.global_process_set._member()

    def slowest(call: Callable[[], Any]) -> float:
        comm.Barrier()
        start = time.perf_counter()
        call()
        return float(comm.allreduce(time.perf_counter() - start, op=MPI.MAX))

    def reducing(compression: Any) -> Callable[[], Any]:
        return lambda: ronde.allreduce(values, ronde.Sum, name="g", compression=compression)

    def alone(compressor: Any, total: Any) -> Callable[[], None]:
        """What a rank encodes and decodes in an allreduce of which `total` is the result. The payloads of
        others are like its own."""
        core = compressor._core
        residual = None if core.unbiased else np.zeros_like(values)
        if core.adds_up:
            return partial(add, core, core.encode(values), residual)
        if compressor._gathered(count, comm.size, members.link):
            return partial(gather, core, core.encode(values), residual)
        fitted, sums = core.for_vector(values), nonzero if core.keeps_sums else core
        part = fitted.encode(values[spans[comm.rank]], None, 0, spans[comm.rank].start)
        totals = [sums.encode(total[span]) for span in spans]
        return partial(through_owners, core, part, totals, residual)

    def add(core: Any, whole: Any, residual: Any) -> None:
        """Payloads are summed like any other numbers."""
        core.encode(values, residual)
        core.decode(whole, result)

    def gather(core: Any, whole: Any, residual: Any) -> None:
        """All get the payloads of all."""
        core.encode(values, residual)
        for rank in range(comm.size):
            core.decode(whole, result, rank > 0)

    def through_owners(core: Any, part: Any, totals: list[Any], residual: Any) -> None:
        """Parts for the others, theirs for this rank, their sum, and the sums of all."""
        fitted, own = core.for_vector(values, residual), np.empty_like(values[spans[comm.rank]])
        for span in spans:  # of quantised ones the own part stands for the sum
            left = None if residual is None else residual[span]
            fitted.encode(values[span], left, 0, span.start)
        for rank in range(0 if core.keeps_sums else 1, comm.size):
            core.decode(part, own, rank > 0)
        if core.keeps_sums:
            nonzero.encode(own)
        for span, payload in zip(spans, totals, strict=True):
            core.decode(payload, result[span])

    def rounding(shared: Any) -> Callable[[], None]:
        """What a rank does itself to add integers of shared scales."""
        core, dtype = shared._core, shared.integers(comm.size)
        residual = None if core.unbiased else np.zeros_like(values)

        def run() -> None:
            maxima = core.maxima(values, residual)
            core.dequantise(core.quantise(values, maxima, dtype, residual), maxima, result)

        return run

    ways: dict[str, Callable[[], Any]] = {"fp32": reducing(None)}
    errors, codecs, sent = {}, {}, {}
    for name in split(options.compressors):
        compressor = make(name)
        before = members.bytes_sent
        got = ronde.allreduce(values, ronde.Sum, compression=compressor)
        sent[name] = comm.allreduce(members.bytes_sent - before, op=MPI.MAX)
        errors[name] = float(np.linalg.norm(got - exact) / np.linalg.norm(exact))
        shares = isinstance(compressor._core, _core.SharedScale)
        codec = rounding(compressor) if shares else alone(compressor, got)
        codecs[name] = [slowest(codec) for _ in range(3)]
        feedback = compressor
        if not compressor.unbiased:
            feedback = ronde.compression.ErrorFeedback(compressor)
        ways[name] = reducing(feedback)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            taken = slowest(way)
            if number:  # the first round touches new memory
                times[name].append(taken)
    if comm.rank == 0:
        report = {"times": times, "codecs": codecs, "errors": errors, "sent": sent}
        Path(options.measure).write_text(json.dumps(report))
    return 0


def _drive(options: argparse.Namespace) -> int:
    report: dict[str, Any] = {
        "hosts": options.hosts,
        "rate": options.rate,
        "megabytes": options.megabytes,
    }
    for _ in range(options.launches):
        found = _launch(options)
        for measured in ("times", "codecs"):
            for name, taken in found.pop(measured).items():
                report.setdefault(measured, {}).setdefault(name, []).extend(taken)
        report |= found
    text = _markdown(report)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "compression.json").write_text(json.dumps(report, indent=1))
    (options.output / "compression.md").write_text(text)
    print(text)
    return 0


def _launch(options: argparse.Namespace) -> dict[str, Any]:
    program = [sys.executable, __file__, "--megabytes", str(options.megabytes)]
    program += ["--rounds", str(options.rounds), "--compressors", options.compressors, "--measure"]
    found: dict[str, Any] = launches.reported(
        launches.on_hosts(options.hosts, options.rate), program
    )
    return found


def _markdown(report: dict[str, Any]) -> str:
    total, hosts = report["megabytes"] * 1e6, report["hosts"]
    rate, exact = bytes_per_second(report["rate"]), 2 * total * (hosts - 1) / hosts
    times = report["times"]
    lines = [
        f"{hosts} emulated hosts at {report['rate']}, one rank each: float32 allreduce of "
        f"{report['megabytes']} MB, times in ms",
        "",
        "| | fewer bytes | wire | codec alone | time | effective GB/s | share | / fp32 | / bf16 "
        "| error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, taken in times.items():
        sent = report["sent"].get(name, exact)
        wire, codec = sent / rate, statistics.median(report["codecs"].get(name, [0.0]))
        possible = max(wire, codec)
        faster = [
            _spread([other / own for other, own in zip(times[base], taken, strict=True)])
            for base in ("fp32", "bf16")
        ]
        error = f"{report['errors'][name]:.2g}" if name in report["errors"] else "0"
        middle = statistics.median(taken)
        lines.append(
            f"| {name} | {exact / sent:.1f} | {wire * 1e3:.0f} | {codec * 1e3:.0f} "
            f"| {middle * 1e3:.0f} | {total / middle / 1e9:.2f} "
            f"| {_spread([possible / each for each in taken])} | {faster[0]} | {faster[1]} "
            f"| {error} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
