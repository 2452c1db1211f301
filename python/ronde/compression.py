"""Compressed updates: fewer bytes where the wire is slow.

    c = ronde.compression.int4()
    mean = ronde.allreduce(gradient, compression=c)                        # what is left out is lost
    feedback = ronde.compression.ErrorFeedback(c)
    mean = ronde.allreduce(gradient, name="w", compression=feedback)       # ... is sent the next time
    opt = ronde.DistributedOptimizer(optimizer, compression=c)             # with feedback
    payload, ctx = c.compress(gradient); gradient = c.decompress(payload, ctx)

A *compressor* holds parameters and no state. What its payloads leave out is the *residual*, which
`ErrorFeedback` keeps for every parameter and adds to the next gradient (Seide et al. 2014; Karimireddy
et al. 2019). Only what crosses machines is compressed: ranks of one machine reduce exactly through
memory. docs/compression.md says what each compressor does and when it pays.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .arrays import ArrayLike, View, view

__all__ = [
    "Compressor",
    "ErrorFeedback",
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

Floats = npt.NDArray[np.float32]


class Compressor:
    """Turns arrays of float32 into payloads of fewer bytes, and back. Make one by its name below.

    Compressors are equal if their parameters are. Random numbers depend on `seed` and on how many arrays
    this compressor has compressed before; so keep one, as a new one for each call would draw the same
    numbers again and again.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any], seed: int = 0) -> None:
        self._made_of = (name, dict(parameters), seed)
        self._core = (
            getattr(_core.Compressor, name)(**_core_parameters(parameters))
            if parameters
            else _core.Compressor(name)
        )
        words = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        self._text = f"{name}({words})"
        self._seed = seed
        self._calls = itertools.count()

    def compress(self, x: ArrayLike) -> tuple[npt.NDArray[np.uint8], Any]:
        """The payload of `x`, float32 of any shape, and what `decompress` must know besides."""
        seen = _floats(view(x))
        payload = self._core.encode(seen.array.reshape(-1), None, self._key(), 0)
        return payload, (seen.shape, seen.wrap)

    def decompress(self, payload: npt.NDArray[np.uint8], ctx: Any) -> Any:
        """The array of a payload, of the kind and shape of what was compressed.

        Raises `ValueError` for what is no payload of such an array.
        """
        shape, wrap = ctx
        values: Floats = np.empty(shape, np.float32)
        self._core.decode(payload, values.reshape(-1), False)
        return wrap(values)

    def payload_bytes(self, elements: int) -> int:
        """The bytes of the payload of an array of so many finite elements, at most."""
        return self._core.capacity_of_whole(elements)

    @property
    def unbiased(self) -> bool:
        """Whether what is decompressed is right on average."""
        return self._core.unbiased

    def _key(self) -> int:
        return _key(self._seed, next(self._calls), "")

    def _compression(self, parts: Sequence[tuple[str, int]]) -> _core.Compression:
        return _core.Compression(self._core, self._text, None, self._key())

    def __repr__(self) -> str:
        return f"ronde.compression.{self._text}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compressor) and self._made_of == other._made_of

    def __hash__(self) -> int:
        return hash((self._text, self._seed))

    def __reduce__(self) -> tuple[Any, ...]:
        return Compressor, self._made_of


class ErrorFeedback:
    """A compressor with a memory: what its payloads leave out of a parameter is added to the next.

    To be given as `compression=` where calls have a `name`, under which the residual of float32 is kept:
    that of array i of a group under "name[i]", that of a parameter of a `DistributedOptimizer` under
    "name[key]". Calls of one name share a residual, whatever they are; so two optimizers that share an
    `ErrorFeedback` need names of their own.
    Where a rank owns a part of the vector, its residual there is that of the sum, which is compressed a
    second time. After a collective that has failed, the residuals are undefined.
    """

    def __init__(self, compressor: Compressor) -> None:
        if not isinstance(compressor, Compressor):
            raise TypeError(f"a ronde.compression.Compressor is needed, not {compressor!r}")
        self.compressor = compressor
        self._residuals: dict[str, Floats] = {}  # of each parameter: a part of a vector below
        self._vectors: dict[tuple[tuple[str, int], ...], Floats] = {}
        self._step: dict[str, int] = {}

    def residual(self, name: str) -> Floats:
        """What has been left out of a parameter, on this rank, in one dimension. `KeyError` if it has
        not been reduced yet."""
        return self._residuals[name].copy()

    def norms(self) -> dict[str, float]:
        """The Euclidean norm of every residual of this rank."""
        return {name: float(np.linalg.norm(left)) for name, left in self._residuals.items()}

    def state_dict(self) -> dict[str, Any]:
        """All residuals of this rank, and the steps of the random numbers."""
        return {
            "compressor": self.compressor._text,
            "residuals": {name: left.copy() for name, left in self._residuals.items()},
            "steps": dict(self._step),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave on this rank of a job of the same size, placement and buckets."""
        if state["compressor"] != self.compressor._text:
            raise ValueError(
                f"this state belongs to {state['compressor']}, not to {self.compressor._text}"
            )
        self._vectors.clear()
        self._residuals = {
            name: np.array(left, np.float32) for name, left in state["residuals"].items()
        }
        self._step = dict(state["steps"])

    def _compression(self, parts: Sequence[tuple[str, int]]) -> _core.Compression:
        first = parts[0][0]
        if not first:
            raise ValueError("error feedback needs a name: what is left out is kept under it")
        self._step[first] = self._step.get(first, -1) + 1
        key = _key(self.compressor._seed, self._step[first], first)
        vector = self._vector(tuple(parts))
        return _core.Compression(self.compressor._core, f"{self!r}", vector, key)

    def _vector(self, parts: tuple[tuple[str, int], ...]) -> Floats:
        """The residuals of the parameters of a call, one after another."""
        if parts in self._vectors:
            return self._vectors[parts]
        vector: Floats = np.zeros(sum(elements for _, elements in parts), np.float32)
        moved = {name for name, _ in parts}
        for known in [key for key in self._vectors if moved & {name for name, _ in key}]:
            del self._vectors[known]
        offset = 0
        for name, elements in parts:
            place = vector[offset : offset + elements]
            before = self._residuals.get(name)
            if before is not None:
                if before.size != elements:
                    raise ValueError(
                        f"the residual of {name!r} has {before.size} elements, the array {elements}"
                    )
                place[...] = before
            self._residuals[name] = place
            offset += elements
        self._vectors[parts] = vector
        return vector

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.compressor, self.state_dict())

    def __repr__(self) -> str:
        return f"ErrorFeedback({self.compressor._text})"


def _restored(compressor: Compressor, state: dict[str, Any]) -> ErrorFeedback:
    feedback = ErrorFeedback(compressor)
    feedback.load_state_dict(state)
    return feedback


Compression = Compressor | ErrorFeedback | None


def compression_of(compression: Compression, parts: Iterable[tuple[str, View]]) -> Any:
    """As the core takes it, for a call on these arrays with these names."""
    if compression is None:
        return None
    if not isinstance(compression, (Compressor, ErrorFeedback)):
        raise TypeError(
            f"compression must be one of ronde.compression, or None, not {compression!r}"
        )
    return compression._compression([(name, _floats(seen).array.size) for name, seen in parts])


def _floats(seen: View) -> View:
    if seen.dtype is not _core.DType.float32:
        raise TypeError(f"compression needs float32, not {seen.dtype.name}")
    return seen


def _key(seed: int, step: int, name: str) -> int:
    """64 bits that are the same wherever these are."""
    words = f"{seed} {step} {name}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


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
        if found[name] not in members:
            raise ValueError(f"{name} must be one of {', '.join(members)}, not {found[name]!r}")
        found[name] = members[found[name]]
    return found


def none() -> None:
    """No compression, for a list of choices."""


def bf16() -> Compressor:
    """bfloat16: half the bytes, 8 significant bits, the range of float32."""
    return Compressor("bf16", {})


def fp16() -> Compressor:
    """float16: half the bytes, 11 significant bits; from 65520 on a value becomes infinity."""
    return Compressor("fp16", {})


def fp8() -> Compressor:
    """Floats of 8 bits (E4M3), in blocks of 128 with a power of two as scale: 3.9 times fewer bytes."""
    return Compressor("fp8", {})


def int8() -> Compressor:
    """Integers of 8 bits, in blocks of 1024 with one step, to nearest: 4.0 times fewer bytes."""
    return Compressor("int8", {})


def int4() -> Compressor:
    """Integers of 4 bits, in blocks of 256 with one step, to nearest: 7.8 times fewer bytes."""
    return Compressor("int4", {})


def sign() -> Compressor:
    """The sign, and the mean of the absolute values of 1024: 31 times fewer bytes (Karimireddy et al.
    2019, with error feedback)."""
    return Compressor("sign", {})


def ternary(*, seed: int = 0) -> Compressor:
    """-1, 0 or 1 times the greatest of 1024, at random, right on average: 16 times fewer bytes (TernGrad,
    Wen et al. 2017)."""
    return Compressor("ternary", {}, seed)


def qsgd(*, seed: int = 0) -> Compressor:
    """Integers of 4 bits of the Euclidean norm of 512, at random, right on average (QSGD, Alistarh et
    al. 2017)."""
    return Compressor("qsgd", {}, seed)


def linear(
    bits: int = 8,
    *,
    block: int = 1024,
    norm: str = "max",
    rounding: str = "nearest",
    seed: int = 0,
) -> Compressor:
    """The quantiser behind int8, int4, sign, ternary and qsgd, with parameters of your own.

    `bits`: 1 to 8. `block`: elements with one step, a multiple of 512 up to 4096 (128 or 256 where the
    bits allow). `norm`: what the step is a part of, the "max" of the absolute values, their "mean", or
    "l2". `rounding`: "nearest" or "stochastic". Raises `ValueError` where there is no such thing.
    """
    parameters = {"bits": bits, "block": block, "norm": norm, "rounding": rounding}
    return Compressor("linear", parameters, seed)


def topk(ratio: float = 0.01) -> Compressor:
    """The largest `ratio` of all values (at least one), exactly; the rest are 0 (Aji and Heafield 2017).

    In a collective they are the largest of what crosses machines together: of the whole bucket, or, where
    machines have several ranks, of the part that this rank drives. Of equal ones the first are sent; NaN and
    infinity always are, even if they are more. Needs error feedback: what is not sent has to be sent later.
    Raises `ValueError` unless `ratio` is above 0 and at most 1.
    """
    return Compressor("topk", {"ratio": float(ratio)})


def block_topk(ratio: float = 0.01, block: int = 1024) -> Compressor:
    """The largest `ratio` of each block of so many values (at least one), exactly.

    As `topk`, with no look at the whole. Raises `ValueError` unless `ratio` is above 0 and at most 1, and
    `block` a multiple of 32 up to 65536.
    """
    return Compressor("block_topk", {"ratio": float(ratio), "block": int(block)})


def threshold(value: float) -> Compressor:
    """What is at least `value` in absolute terms, exactly; the rest are 0.

    How much that is depends on the data alone. Needs error feedback. Raises `ValueError` unless `value` is
    positive and finite as a float32.
    """
    return Compressor("threshold", {"value": float(value)})


def randomk(ratio: float = 0.01, *, seed: int = 0) -> Compressor:
    """One value of each 1 / `ratio` neighbours, at random, the same on all ranks; the rest are 0 (Stich et
    al. 2018).

    Values are sent as they are, so what is decoded is too small on average, and right with error feedback.
    Raises `ValueError` unless `ratio` is above 0 and at most 1.
    """
    return Compressor("randomk", {"ratio": float(ratio)}, seed)
