"""Compressed groups whose results and states are recorded: later versions must give the same bits.

    python tests/collective/recorded.py        writes recorded.json and states.json anew

Values are made of integers, and links are given, so nothing depends on the machine or on NumPy's version.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import ronde
from ronde import _core, context
from ronde.compression import (
    ErrorFeedback,
    bf16,
    block_topk,
    dgc,
    fp8,
    fp16,
    int4,
    int8,
    linear,
    powersgd,
    qsgd,
    randomk,
    shared_scale,
    sign,
    ternary,
    threshold,
    topk,
)
from threads import Rank, run_all

DIGESTS, STATES = (Path(__file__).with_name(f"{name}.json") for name in ("recorded", "states"))
LINK = _core.Link(20e-6, 5e-6, 8e-9, 2e-10)
SHAPES = ((40, 30), (7, 100), (300,), (3, 0), ())
STEPS = 5
NOT_FINITE = 3  # the step in which the last rank has NaN, if there is feedback
# Places of ranks: on machines of their own, on one, on two with two each, and alone.
JOBS: dict[str, tuple[int, dict[str, Any]]] = {
    "1": (1, {}),
    "2": (2, {}),
    "3": (3, {}),
    "4": (4, {}),
    "2 sharing": (2, {"shared": True}),
    "2 x 2": (4, {"machines": [0, 0, 1, 1]}),
    "mixed": (4, {"machines": [0, 1, 0, 1]}),
}


class Halves:
    """A compressor of the user's own: every other value, which of them the context says."""

    def compress(self, x: np.ndarray) -> Any:
        first = int(abs(float(x.reshape(-1)[:1].sum())) * 1e4) % 2
        return x.reshape(-1)[first::2].copy(), (first, x.shape)

    def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
        first, shape = ctx
        x = np.zeros(shape, np.float32)
        x.reshape(-1)[first::2] = payload
        return x


class Sums:
    """Payloads whose sum stands for the sum of the values."""

    sums = True

    def __init__(self, dtype: type) -> None:
        self.dtype = dtype

    def compress(self, x: np.ndarray) -> Any:
        return x.astype(self.dtype), None

    def decompress(self, payload: np.ndarray, ctx: Any) -> np.ndarray:
        return payload.astype(np.float32)


COMPRESSORS: dict[str, Callable[[], Any]] = {
    "int8": int8,
    "int4": int4,
    "fp8": fp8,
    "fp16": fp16,
    "bf16": bf16,
    "sign": sign,
    "ternary": lambda: ternary(seed=1),
    "qsgd": lambda: qsgd(seed=2**70),
    "linear": lambda: linear(3, block=512, norm="l2", rounding="stochastic", seed=-3),
    "topk": lambda: topk(0.1),
    "randomk": lambda: randomk(0.1, seed=3),
    "threshold": lambda: threshold(0.5),
    "block_topk": lambda: block_topk(0.1, 256),
    "powersgd": lambda: powersgd(2),
    "shared_scale": shared_scale,
    "shared_scale at random": lambda: shared_scale(5, block=256, rounding="stochastic", seed=1),
    "own": Halves,
    "own sums": lambda: Sums(np.float32),
    "own sums of halves": lambda: Sums(np.float16),
}
METHODS: dict[str, Callable[[], Any]] = {
    **COMPRESSORS,
    **{
        f"feedback of {name}": lambda make=make: ErrorFeedback(make())
        for name, make in COMPRESSORS.items()
    },
    "dgc": lambda: dgc(0.1),
    "dgc with all": lambda: dgc(0.05, momentum=0.5, clip=2.0, warmup_steps=3),
    "list": lambda: [ErrorFeedback(int4()), None, int8(), ErrorFeedback(topk(0.2)), int8()],
}


def gradients(rank: int, step: int, dtype: Any = np.float32) -> list[np.ndarray]:
    """Between -1 and 1, small ones more often."""
    found = []
    for number, shape in enumerate(SHAPES):
        count = int(np.prod(shape))
        i = np.arange(2 * count, dtype=np.uint64) + np.uint64(10007 * (rank + 1) + 101 * step)
        x = (i + np.uint64(number + 1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = ((x ^ (x >> np.uint64(27))) >> np.uint64(48)).astype(np.float32) / 32768 - 1
        found.append((x[:count] * abs(x[count:])).reshape(shape).astype(dtype))
    return found


def steps(
    me: Rank, method: Any, first: int, last: int, dtype: Any = np.float32, **options: Any
) -> list[np.ndarray]:
    here: Any = SimpleNamespace(_communicator=me.communicator)
    found = []
    for step in range(first, last):
        xs = gradients(me.rank, step, dtype)
        if step == NOT_FINITE and feeds_back(method) and me.rank == me.size - 1:
            xs[1][3, 3] = np.nan
        how: dict[str, Any] = {"op": ronde.Average, **options}
        if not options and not isinstance(method, list):
            xs.insert(1, np.arange(5))  # integers, which are exact, and have no average
            how["op"] = ronde.Sum
        call = ronde.grouped_allreduce if step % 2 else ronde.grouped_allreduce_
        found += call(xs, name="g", compression=method, process_set=here, **how)
        if not isinstance(method, list):
            found.append(
                ronde.allreduce(
                    gradients(me.rank, step, dtype)[0],
                    name="single",
                    compression=method,
                    process_set=here,
                )
            )
    return found


def feeds_back(method: Any) -> bool:
    methods = method if isinstance(method, list) else [method]
    return any(isinstance(each, (ErrorFeedback, dgc)) for each in methods)


def state_of(method: Any) -> Any:
    methods = method if isinstance(method, list) else [method]
    return [each.state_dict() if hasattr(each, "state_dict") else None for each in methods]


def update(digest: Any, thing: Any) -> None:
    """With what it is made of."""
    if isinstance(thing, np.ndarray):
        digest.update(f"{thing.dtype.name}{thing.shape}".encode())
        digest.update(thing.tobytes())
    elif isinstance(thing, Mapping):
        for key in sorted(thing):
            update(digest, key)
            update(digest, thing[key])
    elif isinstance(thing, (list, tuple)):
        digest.update(f"{len(thing)} of".encode())
        for each in thing:
            update(digest, each)
    else:
        digest.update(repr(thing).encode())


def digest_of(thing: Any) -> str:
    digest = hashlib.sha256()
    update(digest, thing)
    return digest.hexdigest()[:32]


Result = tuple[list[np.ndarray], Any]  # of a rank: what was reduced, and its state after that


def run(make: Callable[[], Any], job: str, before: Any = None, **options: Any) -> list[Result]:
    """`before`: the states of all ranks of an earlier job, which goes on here."""
    size, placement = JOBS[job]

    def program(me: Rank) -> Result:
        me.communicator.set_link(LINK)
        method = make()
        first = 0
        if before is not None:
            here: Any = SimpleNamespace(_communicator=me.communicator)
            method.load_state_dict(before, here)
            first = STEPS
        found = steps(me, method, first, first + STEPS, **options)
        return found, state_of(method)

    return run_all(size, program, **placement)


def cases(name: str) -> Iterator[tuple[str, list[Result]]]:
    """All that is recorded of a method."""
    make = METHODS[name]
    for job in JOBS:
        yield job, run(make, job)
        yield f"{job}, factors", run(make, job, prescale_factor=0.75, postscale_factor=1.5)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64):
        for job in ("2", "2 x 2"):
            yield f"{job}, {np.dtype(dtype).name}", run(make, job, dtype=dtype)
    world = context.world()
    settings = world.settings
    try:
        world.settings = dataclasses.replace(settings, fusion_bytes=4000)
        for job in ("3", "2 x 2"):
            yield f"{job}, small buckets", run(make, job)
    finally:
        world.settings = settings
    if name.startswith(("feedback", "dgc")):
        for job, after in (("2", "2"), ("4", "2"), ("2 x 2", "2 x 2"), ("2", "3"), ("3", "2 x 2")):
            states = [state for _, (state,) in run(make, job)]
            yield f"{job} restored on {after}", run(make, after, states)


def digests(name: str) -> dict[str, list[str]]:
    """Of each case, of what all ranks have got and of all states."""
    found = {}
    for case, results in cases(name):
        outputs, states = zip(*results, strict=True)
        found[case] = [digest_of(outputs), digest_of(states)]
    return found


# Whole states, as JSON: what a checkpoint of an earlier version holds.

KEPT = ("feedback of int4", "feedback of powersgd", "dgc with all")
KEPT_JOB = "2"


def to_json(thing: Any) -> Any:
    if isinstance(thing, np.ndarray):
        data = base64.b64encode(thing.tobytes()).decode()
        return {"array": data, "dtype": thing.dtype.name, "shape": list(thing.shape)}
    if isinstance(thing, Mapping):
        return {"items": [[key, to_json(value)] for key, value in thing.items()]}
    return [to_json(each) for each in thing] if isinstance(thing, (list, tuple)) else thing


def from_json(thing: Any) -> Any:
    if isinstance(thing, list):
        return tuple(map(from_json, thing))
    if not isinstance(thing, dict):
        return thing
    if "items" in thing:
        return {key: from_json(value) for key, value in thing["items"]}
    data = np.frombuffer(base64.b64decode(thing["array"]), thing["dtype"])
    return data.reshape(thing["shape"])


def write() -> None:
    found = {name: digests(name) for name in METHODS}
    DIGESTS.write_text(json.dumps(found, indent=1) + "\n")
    states = {
        name: [to_json(state) for _, (state,) in run(METHODS[name], KEPT_JOB)] for name in KEPT
    }
    STATES.write_text(json.dumps(states) + "\n")


if __name__ == "__main__":
    ronde.init()
    write()
