"""Compressed updates: fewer bytes where the network is slow.

    c = ronde.compression.int4()
    mean = ronde.allreduce(gradient, compression=c)                    # what is left out is lost
    feedback = ronde.compression.ErrorFeedback(c)
    mean = ronde.allreduce(gradient, name="w", compression=feedback)   # what is left out is sent later
    opt = ronde.DistributedOptimizer(optimizer, compression=c)         # with feedback
    payload, ctx = c.compress(gradient); gradient = c.decompress(payload, ctx)

A *compressor* holds parameters and no state. What its payloads leave out is the *residual*, which
`ErrorFeedback` keeps for every parameter and adds to the next gradient (Seide et al. 2014;
Karimireddy et al. 2019). Only what crosses machines is compressed: ranks of one machine reduce
exactly in shared memory. docs/compression.md says what each compressor does and when it pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import context
from ._auto import Auto
from ._dgc import DGC as dgc
from ._feedback import ErrorFeedback
from ._method import Method
from ._names import resolved
from ._power_sgd import PowerSGD as powersgd
from ._shared_scale import SharedScale
from .codecs import (
    Codec,
    Compressor,
    Predictable,
    bf16,
    block_topk,
    fp8,
    fp16,
    int4,
    int8,
    linear,
    none,
    qsgd,
    randomk,
    sign,
    ternary,
    threshold,
    topk,
)
from .custom import codec_of

__all__ = [
    "Auto",
    "Compressor",
    "ErrorFeedback",
    "auto",
    "bf16",
    "block_topk",
    "dgc",
    "fp8",
    "fp16",
    "int4",
    "int8",
    "linear",
    "none",
    "powersgd",
    "qsgd",
    "randomk",
    "shared_scale",
    "sign",
    "ternary",
    "threshold",
    "topk",
]


def auto(
    candidates: Sequence[Predictable] | None = None, *, min_loss_decrease: float = 0.9
) -> Auto:
    """Choose by measurement, for each bucket: exact float32, bfloat16, or one of the candidates.

    `auto().report()` prints what was predicted, measured and chosen. `Auto` says how it chooses.

    Args:
        candidates: compressors to choose from besides exact float32 and bfloat16, from the most to
            the least exact; `int8()`, `int4()` and `powersgd(32)` unless given.
        min_loss_decrease: the share of the expected loss decrease that compression must keep, from 0 to
            1.
    """
    return Auto(candidates, min_loss_decrease=min_loss_decrease)


def shared_scale(
    bits: int = 4, *, block: int = 1024, rounding: str = "nearest", seed: int = 0
) -> SharedScale:
    """Send integers of `bits` bits with one step for all ranks, which are added exactly.

    4 times fewer bytes where the sums fit int8, 2 times where they need int16. With 4 bits, int8
    holds the sums of 18 ranks and int16 those of 4681; with 8 bits int16 holds those of 258. Each
    value is rounded once.

    Args:
        bits: 2 to 8.
        block: elements with one step, a multiple of 128 up to 4096.
        rounding: "nearest", or "stochastic", which is unbiased.
        seed: of the random numbers.

    Raises:
        ValueError: there is no such quantiser; and in a call of more ranks than can be added.
    """
    return SharedScale(bits, block, rounding, seed)


def method_of(compression: Any, what: str = "compression") -> Method | None:
    """Return what was given as `compression=` as a way to reduce; None for none."""
    given = resolved(what, compression)
    if given is None or isinstance(given, Method):
        return given
    codec = codec_of(given)
    if codec is None:
        raise TypeError(
            f"{what} must be one of ronde.compression, as ronde.compression.int8(), or the "
            f"name of one, or an object with compress and decompress, or None, not {compression!r}"
        )
    return codec


def is_function(compression: Any) -> bool:
    """Whether it is a function that chooses, rather than what reduces."""
    given = resolved("compression", compression)
    if given is None or isinstance(given, (Method, type)) or codec_of(given):
        return False
    return callable(given)


def method_of_call(compression: Any) -> Method | None:
    """The same for a single call. As calls of one method may depend on each other, a name stands for one
    method as long as the job."""
    if not isinstance(compression, str):
        return method_of(compression)
    named: dict[str, Method | None] = context.world().named
    if compression not in named:
        named.setdefault(compression, method_of(compression))  # two threads may come at once
    return named[compression]


def feeding_back(method: Method) -> Method:
    """Add error feedback where it is needed: what is not unbiased would be lost again and again."""
    return ErrorFeedback(method) if isinstance(method, Codec) and not method.unbiased else method
