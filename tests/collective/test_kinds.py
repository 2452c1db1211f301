"""Every promised kind of array with every promised dtype: in, through a collective, and out again."""

from __future__ import annotations

import array
import mmap
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import ronde
from ronde import _core
from threads import Rank, run_all

DTYPES = {name: np.dtype(name) for name in _core.DType.__members__ if name != "bfloat16"}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
_ALL = tuple(DTYPES)
_TYPECODES = {np.dtype(code).name: code for code in "bBhHiIqQfd"}


def _jax(data: Any) -> Any:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray(data)


def _torch(data: Any) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    return torch.tensor(data.astype(float)).to(getattr(torch, data.dtype.name))


def _torch_to_numpy(x: Any) -> Any:
    return x.double().numpy().astype(DTYPES[str(x.dtype).removeprefix("torch.")])


def _mmap(data: Any) -> mmap.mmap:
    with tempfile.TemporaryFile() as file:
        file.write(data.tobytes())
        file.flush()
        return mmap.mmap(file.fileno(), data.nbytes)


def _memmap(data: Any) -> Any:
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, data.dtype, "w+", shape=data.shape)
    mapped[...] = data
    return mapped


# Of each kind: one of it from a NumPy array, back to NumPy, and which dtypes it can hold.
KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], tuple[str, ...]]] = {
    "numpy": (np.copy, np.asarray, _ALL),  # and ml_dtypes, for bfloat16
    "numpy.memmap": (_memmap, np.asarray, _ALL),
    "torch": (_torch, _torch_to_numpy, _ALL),
    "jax": (_jax, np.asarray, _ALL),
    "array.array": (
        lambda data: array.array(_TYPECODES[data.dtype.name], data.tobytes()),
        np.asarray,
        tuple(_TYPECODES),
    ),
    "memoryview": (
        lambda data: memoryview(data.copy()),
        np.asarray,
        tuple(name for name in _ALL if name != "bfloat16"),  # for which it has no format
    ),
    "mmap": (_mmap, lambda x: np.asarray(memoryview(x)), ("uint8",)),
}
# What has nothing but the buffer protocol is not made anew.
_OTHER_RESULT = {"numpy.memmap": np.ndarray, "mmap": np.ndarray}


CASES = [(kind, name) for kind, (*_, names) in KINDS.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_kind_of_array_with_every_dtype(kind: str, name: str) -> None:
    make, to_numpy, _ = KINDS[kind]
    whole = np.array([[1, 0, 1, 1], [0, 0, 1, 0]]).astype(DTYPES[name])

    def program(me: Rank) -> None:
        here: Any = SimpleNamespace(_communicator=me.communicator, ranks=[0, 1])
        x = make(whole[me.rank])
        results = {
            "allreduce": (ronde.allreduce(x, ronde.Max, process_set=here), whole.max(0)),
            "allgather": (ronde.allgather(x, process_set=here), whole.reshape(-1)),
            "broadcast": (ronde.broadcast(x, 1, process_set=here), whole[1]),
            "reducescatter": (
                ronde.reducescatter(x, ronde.Min, process_set=here),
                whole.min(0)[2 * me.rank :][:2],
            ),
        }
        for collective, (result, expected) in results.items():
            assert type(result) is _OTHER_RESULT.get(kind, type(x)), collective
            found = to_numpy(result)
            assert found.dtype == expected.dtype, collective
            np.testing.assert_array_equal(found, expected, collective)
        if kind != "jax":  # whose arrays do not change
            assert ronde.allreduce_(x, ronde.Max, process_set=here) is x
            np.testing.assert_array_equal(to_numpy(x), whole.max(0))

    run_all(2, program)
