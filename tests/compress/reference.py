"""The quantised compressors once more, in NumPy, from what the headers in csrc/compress say."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np

Array = Any
LANES = 16
SMALLEST = np.finfo(np.float32).tiny


def group_of(bits: int) -> int:
    return LANES * max(8, 32 // gcd(bits, 32))


def levels_of(bits: int) -> int:
    return max(1, 2 ** (bits - 1) - 1)


def pack(codes: Array, bits: int) -> bytes:
    """Integers, of which the lowest `bits` count, filled up to whole groups."""
    group = group_of(bits)
    codes = np.pad(codes, (0, -len(codes) % group))
    lanes = codes.reshape(-1, group // LANES, LANES).transpose(0, 2, 1)
    each = ((lanes[..., None] >> np.arange(bits)) & 1).astype(np.uint8)
    numbers = np.packbits(each.reshape(*lanes.shape[:2], -1), axis=-1, bitorder="little")
    words = np.ascontiguousarray(numbers).view("<u4")
    return words.transpose(0, 2, 1).tobytes()


def philox(counters: list[Array], key: int) -> list[Array]:
    """Philox4x32-10: the four words of each counter of four words."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counters)
    for i in range(10):
        k0 = np.uint64((key + i * 0x9E3779B9) & 0xFFFFFFFF)
        k1 = np.uint64(((key >> 32) + i * 0xBB67AE85) & 0xFFFFFFFF)
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (b >> half) ^ c1 ^ k0, b & low, (a >> half) ^ c3 ^ k1, a & low
    return [c0, c1, c2, c3]


def random_numbers(count: int, key: int, first: int) -> Array:
    """What is added before rounding, in (-0.5, 0.5): one for each element from `first` on."""
    position, row, lane = np.unravel_index(np.arange(count), (count // 128 + 1, 8, LANES))
    position = position.astype(np.uint64) + np.uint64(first // 128)
    none = np.zeros(count, np.uint64)
    words = philox([lane, position & np.uint64(0xFFFFFFFF), position >> np.uint64(32), none], key)
    word = np.choose(row // 2, words)
    bits = (word >> (np.uint64(16) * (row % 2).astype(np.uint64))) & np.uint64(0xFFFF)
    return (bits.astype(np.float64) - 32767.5) / 65536


def norm_of(x: Array, norm: str) -> float:
    wide = np.abs(x.astype(np.float64))
    return {
        "max": lambda: wide.max(),
        "mean": lambda: wide.mean(),
        "l2": lambda: np.sqrt((wide**2).sum()),
    }[norm]()


def step_of(x: Array, bits: int, norm: str) -> float:
    """The step of a block of finite values, exact but for its rounding to float32."""
    levels = levels_of(bits)
    largest = float.fromhex("0x1.fffffcp127") / levels
    step = min(norm_of(x, norm) / levels, largest)
    return 0.0 if np.abs(x).max() < SMALLEST or step < SMALLEST else step


def integers(x: Array, step: Any, bits: int, random: Array | None) -> Array:
    """q for each x of one block, for a float32 step."""
    if bits == 1 and random is None:
        return np.where(np.signbit(x), -1, 1)
    inverse = np.float32(0) if step == 0 else np.float32(1) / step
    q = np.clip(x * inverse, -levels_of(bits), levels_of(bits)).astype(np.float32)
    if bits == 1:
        assert random is not None
        return np.where(q + (2 * random).astype(np.float32) < 0, -1, 1)
    if random is not None:
        q = q + random.astype(np.float32)
    return np.rint(q).astype(np.int64)
