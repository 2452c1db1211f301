"""How fast one core encodes and decodes: benchmarks/codecs.py [names of compressors].

Encoding, with a residual, is compared with the pass over memory that it cannot do without: read the
values and the residual, write the residual. Decoding with addition is compared with reading and
writing the values alone, without the payload. Both passes and both codecs alternate within one run;
shares (time of the pass / time of the codec) are printed as min/median/max over the rounds. The error
is that of normal values, root of the mean square, relative to them. Low rank has three passes, which
are compared by the memory that they have to move: project as encoding, back-project reads once,
reconstruct reads and writes the residual and writes the result.

Sparse payloads touch few of the values, so there is no pass that decoding them could not do without: its
shares of the same pass only say how long it takes, and are above 1. With torch installed, `topk` is also
compared with torch.topk of the absolute values, which selects from memory that is ready, on one thread.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from ronde import _core

try:
    import torch
except ImportError:
    torch = None

COUNT = 25_000_000
ROUNDS = 7
RATIOS = {"topk 0.1%": 0.001, "topk 1%": 0.01}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def shares(passes: list[float], codec: list[float]) -> str:
    each = sorted(a / b for a, b in zip(passes, codec, strict=True))
    return f"{each[0]:.2f}/{median(each):.2f}/{each[-1]:.2f}"


def stream(values: Any, residual: Any) -> None:
    """Reads both, writes the residual."""
    _core.reduce_many(_core.ReduceOp.sum, _core.DType.float32, [residual], [residual, values])


def touch(out: Any) -> None:
    """Reads and writes all of it; what is not scaled would be a copy to itself, and not happen."""
    _core.reduce_many(_core.ReduceOp.sum, _core.DType.float32, [out], [out], prescale=0.5)


def compressors() -> dict[str, Any]:
    found = {name: _core.Compressor(name) for name in _core.compressor_names()}
    found |= {name: _core.Compressor.topk(ratio) for name, ratio in RATIOS.items()}
    found["block 1%"] = _core.Compressor.block_topk(0.01)
    found["random 1%"] = _core.Compressor.randomk(0.01)
    found["threshold"] = _core.Compressor.threshold(2.88)  # 1% of values and residuals as below
    return found


def measure(name: str, compressor: Any, values: Any, before: Any) -> str:
    residual, out = np.zeros_like(values), np.ones_like(values)
    payload = compressor.encode(values, residual)
    error = np.sqrt(np.dot(residual, residual) / np.dot(values, values))
    calls: dict[str, Callable[[], object]] = {
        "pass": lambda: stream(values, residual),
        "encode": lambda: compressor.encode(values, residual),
        "touch": lambda: touch(out),
        "decode": lambda: compressor.decode(payload, out, add=True),
    }
    if torch and name in RATIOS:
        absolute, k = torch.from_numpy(np.abs(values)), round(RATIOS[name] * COUNT)
        calls["torch"] = lambda: torch.topk(absolute, k, sorted=False)
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            np.copyto(residual, before)
            times[key].append(seconds(call))
    encode, decode = (4 * COUNT / median(times[key]) / 1e9 for key in ("encode", "decode"))
    line = (
        f"{name:9} {4 * COUNT / len(payload):6.2f}x  error {error:8.1e}"
        f"  encode {encode:5.1f} GB/s, share {shares(times['pass'], times['encode'])}"
        f"  decode and add {decode:5.1f} GB/s, share {shares(times['touch'], times['decode'])}"
    )
    if "torch" in times:
        line += f"  time of torch.topk / encode {shares(times['torch'], times['encode'])}"
    return line


def measure_low_rank(rank: int, values: Any, before: Any) -> str:
    """The three passes of PowerSGD over a square matrix, by the bytes that each has to move."""
    side = math.isqrt(COUNT)
    product, random = _core.LowRank(side, side, rank), np.random.default_rng(2)
    left, right = (random.standard_normal((rank, side), np.float32) for _ in range(2))
    residual, out = before.copy(), np.empty_like(values)
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "pass": (12, lambda: stream(values, residual)),
        "project": (12, lambda: product.project(values, right, residual)),
        "back-project": (4, lambda: product.back_project(residual, left)),
        "reconstruct": (12, lambda: product.reconstruct(left, right, out, 1, residual, 4)),
    }
    rates: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, (moved, call) in calls.items():
            rates[key].append(moved * COUNT / seconds(call) / 1e9)
    texts = [
        f"{key} {median(rates[key]):5.1f} GB/s, share {shares(rates[key], rates['pass'])}"
        for key in list(calls)[1:]
    ]
    return f"low rank {rank:2}  {side / 2 / rank:6.1f}x  " + "  ".join(texts)


def main() -> None:
    print(f"{COUNT} float32, instruction set {_core.simd()}, one thread; GB/s of float32")
    if torch:
        torch.set_num_threads(1)
    random = np.random.default_rng(1)
    values = random.standard_normal(COUNT, np.float32)
    before = random.standard_normal(COUNT, np.float32) / 2
    known = compressors()
    for name in sys.argv[1:] or known:
        print(measure(name, known[name], values, before), flush=True)
    for rank in () if sys.argv[1:] else (1, 2, 4, 8):
        print(measure_low_rank(rank, values, before), flush=True)


if __name__ == "__main__":
    main()
