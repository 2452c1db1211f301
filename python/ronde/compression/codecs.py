"""Compressors with a payload of their own: values to bytes and back."""

from __future__ import annotations

import math
import operator
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from .._calls import factor_of
from ..arrays import ArrayLike, view
from ._floats import floats_of, room_for
from ._method import Floats, Method

__all__ = [
    "Codec",
    "Compressor",
    "Predictable",
    "Traffic",
    "bf16",
    "block_topk",
    "fp8",
    "fp16",
    "int4",
    "int8",
    "linear",
    "none",
    "qsgd",
    "randomk",
    "sign",
    "ternary",
    "threshold",
    "topk",
]


class Traffic(NamedTuple):
    """Of one rank in an allreduce."""

    wire_bytes: float  # that it sends, and receives
    encoded: float  # elements
    decoded: float
    steps: int = 2  # in which messages go, each after those of the one before
    overlaps: bool = True  # codec and wire: while one part travels, others are encoded and decoded


class Codec(Method):
    """What turns arrays into payloads and back."""

    unbiased: bool
    """Whether what is decompressed is right on average."""

    _native: _core.Codec

    def state_dict(self) -> dict[str, Any]:
        """What calls have left for later ones, besides residuals."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""


class Predictable(Codec):
    """A codec of which it is known what it would send and take."""

    @abstractmethod
    def _traffic(
        self, shapes: Sequence[tuple[int, ...]], ranks: int, local_size: int, link: _core.Link
    ) -> Traffic:
        """Of a rank, where arrays of these shapes go between `ranks`, each after `local_size` of them were
        reduced in shared memory."""

    @abstractmethod
    def _seconds(self, values: Floats) -> tuple[float, float]:
        """What it takes to encode a matrix, with a residual if that is needed, and to decode it."""


class Compressor(Predictable):
    """Turns arrays into payloads of fewer bytes, and back. Made by the functions of
    `ronde.compression`.

    Arrays are of float16, bfloat16, float32 or float64; all are compressed as float32.

    Compressors are equal if their parameters are. Random numbers depend on the seed and on how many
    arrays this compressor has compressed before. So keep one: a new one for each call would draw
    the same numbers again and again.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any], seed: int = 0) -> None:
        self._made_of = (name, dict(parameters), seed)
        self._core = (
            getattr(_core.Compressor, name)(**_core_parameters(parameters))
            if parameters
            else _core.Compressor(name)
        )
        shown = {**parameters, "seed": seed} if seed else parameters
        self._text = f"{name}({', '.join(f'{key}={value!r}' for key, value in shown.items())})"
        self._seed = whole("seed", seed)
        self._native = self._method()
        self._compressed = 0  # by this rank alone
        self.unbiased = self._core.unbiased

    def compress(self, x: ArrayLike) -> tuple[npt.NDArray[np.uint8], Any]:
        """Return the payload of `x` and what `decompress` needs besides.

        Args:
            x: an array of a floating type, of any shape.

        Raises:
            TypeError: `x` is of another type.
            ValueError: `x` is of float64 and beyond the range of float32.
        """
        values, origin = floats_of(view(x))
        key = key_of(self._seed, self._compressed, "compress")
        self._compressed += 1
        return self._core.encode(values.reshape(-1), None, key, 0), origin

    def decompress(self, payload: npt.NDArray[np.uint8], ctx: Any) -> Any:
        """Return the array of a payload, of the kind, dtype and shape of what was compressed.

        Raises:
            ValueError: this is no payload of such an array.
        """
        values = room_for(payload, ctx)
        self._core.decode(payload, values.reshape(-1), False)
        return ctx.array(values)

    def payload_bytes(self, elements: int) -> int:
        """Return the most bytes that the payload of an array of `elements` finite elements can have."""
        return self._core.capacity_of_whole(whole("elements", elements))

    def _method(self) -> _core.Codec:
        return _core.Compressing(self._core, str(self._seed))

    def _traffic(
        self, shapes: Sequence[tuple[int, ...]], ranks: int, local_size: int, link: _core.Link
    ) -> Traffic:
        elements = sum(map(math.prod, shapes)) // local_size
        payload = sums = self.payload_bytes(elements)
        share = (ranks - 1) / ranks
        if self._core.adds_up:
            return Traffic(share * 2 * payload, elements, elements, overlaps=False)
        if self._gathered(elements, ranks, link):
            return Traffic((ranks - 1) * payload, elements, ranks * elements, steps=1)
        if self._core.keeps_sums:  # which hold what all ranks have sent
            sums = min(ranks * payload, 4 * elements)
        # A rank encodes parts for the others and the sum of its own, and decodes the others' parts of
        # its own slice and all sums.
        return Traffic(share * (payload + sums), elements, (1 + share) * elements)

    def _gathered(self, elements: int, ranks: int, link: _core.Link) -> bool:
        """Whether payloads go to all of the ranks, which add them up by themselves."""
        payload = self.payload_bytes(elements)
        return self._core.keeps_sums and _core.better_gathered(payload, ranks, link)

    def _seconds(self, values: Floats) -> tuple[float, float]:
        flat = values.reshape(-1)
        residual = None if self.unbiased else np.zeros_like(flat)
        start = time.perf_counter()
        payload = self._core.encode(flat, residual, 0, 0)
        between = time.perf_counter()
        self._core.decode(payload, flat, False)
        return between - start, time.perf_counter() - between

    def _state(self) -> dict[str, int]:
        return {"_calls": self._native.steps, "_compressed": self._compressed}

    def __setstate__(self, state: Mapping[str, int]) -> None:
        self._native.steps = state["_calls"]
        self._compressed = state["_compressed"]

    def __repr__(self) -> str:
        return f"ronde.compression.{self._text}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compressor) and self._made_of == other._made_of

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[Any, ...]:
        return Compressor, self._made_of, self._state()


def key_of(seed: int, step: int, name: str) -> int:
    """64 bits that are the same wherever these are."""
    return _core.key_of(str(seed), step, name)


def number(what: str, value: Any) -> float:
    """`TypeError` for what is none."""
    return factor_of(what, value)


def whole(what: str, value: Any) -> int:
    """`TypeError` for what is not a whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, not {value!r}") from None


def ratio_of(ratio: Any) -> float:
    found = number("ratio", ratio)
    if not 0 < found <= 1:
        raise ValueError(
            "a ratio must be above 0 and at most 1: the share of values that is sent (0.02 is 2 percent), "
            f"not {ratio!r}"
        )
    return found


def _core_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """With the core's names for choices."""
    choices: dict[str, Any] = {
        "norm": _core.Norm.__members__,
        "rounding": _core.Rounding.__members__,
    }
    found = dict(parameters)
    for name, members in choices.items():
        if name not in found:
            continue
        if not isinstance(found[name], str) or found[name] not in members:
            raise ValueError(f"{name} must be one of {', '.join(members)}, not {found[name]!r}")
        found[name] = members[found[name]]
    return found


def none() -> None:
    """Do not compress; for a list of choices."""


def bf16() -> Compressor:
    """Send bfloat16: half the bytes, 8 significant bits, the range of float32."""
    return Compressor("bf16", {})


def fp16() -> Compressor:
    """Send float16: half the bytes, 11 significant bits. From 65520 on a value becomes infinity."""
    return Compressor("fp16", {})


def fp8() -> Compressor:
    """Send floats of 8 bits (E4M3), in blocks of 128 with a power of two as scale: 3.9 times fewer
    bytes.
    """
    return Compressor("fp8", {})


def int8() -> Compressor:
    """Send integers of 8 bits, in blocks of 1024 with one step, rounded to nearest: 4.0 times fewer
    bytes.
    """
    return Compressor("int8", {})


def int4() -> Compressor:
    """Send integers of 4 bits, in blocks of 256 with one step, rounded to nearest: 7.8 times fewer
    bytes.
    """
    return Compressor("int4", {})


def sign() -> Compressor:
    """Send signs, and the mean of the absolute values of 1024: 31 times fewer bytes.

    Needs error feedback (Karimireddy et al. 2019).
    """
    return Compressor("sign", {})


def ternary(*, seed: int = 0) -> Compressor:
    """Send -1, 0 or 1 at random, times the greatest of 1024: 16 times fewer bytes.

    Unbiased (TernGrad, Wen et al. 2017).

    Args:
        seed: of the random numbers.
    """
    return Compressor("ternary", {}, seed)


def qsgd(*, seed: int = 0) -> Compressor:
    """Send integers of 4 bits at random, in steps of the Euclidean norm of 512: 7.9 times fewer bytes.

    Unbiased (QSGD, Alistarh et al. 2017).

    Args:
        seed: of the random numbers.
    """
    return Compressor("qsgd", {}, seed)


def linear(
    bits: int = 8,
    *,
    block: int = 1024,
    norm: str = "max",
    rounding: str = "nearest",
    seed: int = 0,
) -> Compressor:
    """Quantise as int8, int4, sign, ternary and qsgd do, with parameters of your own.

    Args:
        bits: 1 to 8.
        block: elements with one step, a multiple of 512 up to 4096 (128 or 256 where the bits
            allow).
        norm: what the step is a part of: the "max" of the absolute values, their "mean", or "l2".
        rounding: "nearest", or "stochastic", which is unbiased.
        seed: of the random numbers.

    Raises:
        ValueError: there is no such quantiser.
    """
    parameters = {
        "bits": whole("bits", bits),
        "block": whole("block", block),
        "norm": norm,
        "rounding": rounding,
    }
    return Compressor("linear", parameters, seed)


def topk(ratio: float = 0.01) -> Compressor:
    """Send the largest `ratio` of all values (at least one), exactly; the rest are 0.

    In a collective these are the largest of the whole bucket, or, where machines have several
    ranks, of the slice that this rank sends. Of equal values the first are sent. NaN and infinity
    are always sent, even if they are more. Needs error feedback (Aji and Heafield 2017; Stich et
    al. 2018).

    Args:
        ratio: above 0 and at most 1, or `ValueError`.
    """
    return Compressor("topk", {"ratio": ratio_of(ratio)})


def block_topk(ratio: float = 0.01, block: int = 1024) -> Compressor:
    """Send the largest `ratio` of each block (at least one value), exactly; the rest are 0.

    It is like `topk` without a view of the whole. Needs error feedback.

    Args:
        ratio: above 0 and at most 1.
        block: values in a block, a multiple of 32 up to 65536.

    Raises:
        ValueError: a parameter is out of range.
    """
    return Compressor("block_topk", {"ratio": ratio_of(ratio), "block": whole("block", block)})


def threshold(value: float) -> Compressor:
    """Send all values of at least `value` in absolute terms, exactly; the rest are 0.

    How many that are depends on the data alone. Needs error feedback.

    Args:
        value: positive and finite as a float32, or `ValueError`.
    """
    return Compressor("threshold", {"value": number("value", value)})


def randomk(ratio: float = 0.01, *, seed: int = 0) -> Compressor:
    """Send one value of each 1 / `ratio` neighbours, at random, the same on all ranks.

    The rest are 0 (Stich et al. 2018). All ranks know which, so only these values travel, without
    an index, and they are reduced exactly. They are not scaled up, so decoded values are too small
    on average: needs error feedback. Where one of the neighbours is NaN or infinite, all of them
    become NaN.

    Args:
        ratio: above 0 and at most 1, or `ValueError`.
        seed: of the random numbers.
    """
    return Compressor("randomk", {"ratio": ratio_of(ratio)}, seed)
