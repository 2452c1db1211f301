"""Compressed allreduce between hosts, against exact and against what wire and codec allow.

    python benchmarks/compression.py --hosts 4 --rate 1gbit --megabytes 100 --output results

starts hosts as benchmarks/cluster does, one rank each, and times allreduces of normal float32 values, exact
and with each compressor in turns (those that are not right on average with error feedback). A time is that
of one call on the slowest rank. Written are FOLDER/compression.json and FOLDER/compression.md: for each
compressor the median time, the bandwidth in bytes before compression, and as median (least to greatest)

    share       of what is possible: the longer of what the wire needs for the payloads at its full rate,
                and of the codec alone, all ranks encoding and decoding at once what they have to
    / fp32      exact time over this one's, of the same round; / bf16 alike
    error       of the first result without feedback, relative to the exact one (root of mean squares)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NAMES = ("bf16", "fp16", "fp8", "int8", "int4", "qsgd", "ternary", "sign")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=4, help="how many (4)")
    parser.add_argument("--rate", default="1gbit", help="of each link, each way (1gbit)")
    parser.add_argument("--megabytes", type=int, default=100, help="of float32 values (100)")
    parser.add_argument("--rounds", type=int, default=5, help="of all compressors in turns (5)")
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # this is a rank; the file for results
    options = parser.parse_args(arguments)
    return _measure(options) if options.measure else _drive(options)


def _measure(options: argparse.Namespace) -> int:
    import numpy as np
    import ronde
    from mpi4py import MPI

    ronde.init()
    comm = MPI.COMM_WORLD
    count = options.megabytes * 1_000_000 // 4
    values = np.random.default_rng(ronde.rank()).standard_normal(count, np.float32)
    result = np.empty_like(values)
    exact = ronde.allreduce(values, ronde.Sum)
    compressors: dict[str, Any] = {name: getattr(ronde.compression, name)() for name in NAMES}

    def slowest(call: Callable[[], Any]) -> float:
        comm.Barrier()
        start = time.perf_counter()
        call()
        return float(comm.allreduce(time.perf_counter() - start, op=MPI.MAX))

    def reducing(compression: Any) -> Callable[[], Any]:
        return lambda: ronde.allreduce(values, ronde.Sum, name="g", compression=compression)

    def alone(compressor: Any) -> Callable[[], Any]:
        """What a rank encodes and decodes in an allreduce: its parts for the others, theirs for it, the
        sum, and the sums of all."""
        core, ranks = compressor._core, comm.size
        residual = None if compressor.unbiased else np.zeros_like(values)
        slices = np.array_split(np.arange(count), ranks)
        spans = [slice(int(part[0]), int(part[-1]) + 1) for part in slices]
        left = [None if residual is None else residual[span] for span in spans]
        payloads = [core.encode(values[span], None, 0, 0) for span in spans]

        def run() -> None:
            for span, kept, payload in zip(spans, left, payloads, strict=True):
                core.encode(values[span], kept, 0, 0)
                core.decode(payload, result[span], False)
            for payload in payloads[1:]:
                core.decode(payload[: payloads[-1].size], result[spans[-1]], True)

        return run

    ways: dict[str, Callable[[], Any]] = {"fp32": reducing(None)}
    errors, codecs = {}, {}
    for name, compressor in compressors.items():
        got = ronde.allreduce(values, ronde.Sum, compression=compressor)
        errors[name] = float(np.linalg.norm(got - exact) / np.linalg.norm(exact))
        feedback = compressor
        if not compressor.unbiased:
            feedback = ronde.compression.ErrorFeedback(compressor)
        ways[name] = reducing(feedback)
        codecs[name] = [slowest(alone(compressor)) for _ in range(3)]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            taken = slowest(way)
            if number:  # the first round touches new memory
                times[name].append(taken)
    if comm.rank == 0:
        ratios = {name: 4 * count / each.payload_bytes(count) for name, each in compressors.items()}
        told = {"times": times, "codecs": codecs, "errors": errors, "ratios": ratios}
        Path(options.measure).write_text(json.dumps(told))
    return 0


def _drive(options: argparse.Namespace) -> int:
    folder = str(Path(__file__).resolve().parent)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "times.json"
        command = [sys.executable, f"{folder}/cluster", "run", "--hosts", str(options.hosts)]
        command += ["--rate", options.rate, "--", sys.executable, __file__, "--measure", str(file)]
        command += ["--megabytes", str(options.megabytes), "--rounds", str(options.rounds)]
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
        found = json.loads(file.read_text())
    told = {"hosts": options.hosts, "rate": options.rate, "megabytes": options.megabytes} | found
    text = _markdown(told)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "compression.json").write_text(json.dumps(told, indent=1))
    (options.output / "compression.md").write_text(text)
    print(text)
    return 0


def _markdown(told: dict[str, Any]) -> str:
    from cluster.hosts import bytes_per_second

    total, hosts = told["megabytes"] * 1e6, told["hosts"]
    wire = 2 * total * (hosts - 1) / hosts / bytes_per_second(told["rate"])
    times = told["times"]
    lines = [
        f"{hosts} emulated hosts at {told['rate']}, one rank each: float32 allreduce of "
        f"{told['megabytes']} MB, times in ms",
        "",
        "| | fewer bytes | wire | codec alone | time | effective GB/s | share | / fp32 | / bf16 "
        "| error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, taken in times.items():
        ratio = told["ratios"].get(name, 1.0)
        codec = statistics.median(told["codecs"].get(name, [0.0]))
        possible = max(wire / ratio, codec)
        faster = [
            _spread([other / own for other, own in zip(times[base], taken, strict=True)])
            for base in ("fp32", "bf16")
        ]
        error = f"{told['errors'][name]:.2g}" if name in told["errors"] else "0"
        middle = statistics.median(taken)
        lines.append(
            f"| {name} | {ratio:.1f} | {wire / ratio * 1e3:.0f} | {codec * 1e3:.0f} "
            f"| {middle * 1e3:.0f} | {total / middle / 1e9:.2f} "
            f"| {_spread([possible / each for each in taken])} | {faster[0]} | {faster[1]} "
            f"| {error} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
