"""What goes in: arrays of every kind, and clear words about what is none."""

from __future__ import annotations

import array
import sys
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import ronde
from ronde import _core
from ronde.arrays import make, view


class CpuArray:
    """Speaks DLPack and nothing else, like the arrays of other libraries."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()


class ArrayOfAnotherDevice:
    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("nobody should ask")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (10, 0)  # AMD's


class CupyLike:
    """Its memory is none, for whatever driver there is."""

    def __init__(self, **changed: Any) -> None:
        usual = {"shape": (2,), "typestr": "<f4", "data": (64, False), "version": 3}
        self.__cuda_array_interface__ = {**usual, **changed}


def test_contiguous_memory_is_not_copied() -> None:
    x = np.arange(6.0).reshape(2, 3)
    seen = view(x)
    assert seen.array is x and not seen.is_copy
    assert seen.dtype is _core.DType.float64 and seen.shape == (2, 3)
    assert seen.wrap(x) is x


@pytest.mark.parametrize("name", list(_core.DType.__members__))
def test_every_dtype_is_known(name: str) -> None:
    dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
    assert view(np.zeros(3, dtype)).dtype.name == name
    assert (
        make(np.zeros(16, np.uint8), view(np.zeros(1, dtype)).dtype, (-1,), torch=False).dtype
        == dtype
    )


def test_what_is_not_contiguous_is_copied_and_written_back() -> None:
    x = np.zeros((4, 4))
    seen = view(x[::2, 1:3], writable=True)
    assert seen.array.flags.c_contiguous and seen.is_copy
    seen.array[...] = 7
    seen.write_back()
    assert x.sum() == 4 * 7


def test_the_other_byte_order_is_converted_and_written_back() -> None:
    x = np.array([1, 2], ">i4")
    seen = view(x, writable=True)
    assert seen.array.dtype.isnative and seen.array.tolist() == [1, 2]
    seen.array[...] = 10 * seen.array
    seen.write_back()
    assert x.tolist() == [10, 20] and x.dtype == ">i4"


@pytest.mark.parametrize(
    "x", [array.array("f", [1, 2]), bytearray(8), memoryview(np.arange(3)), b"read only"]
)
def test_the_buffer_protocol_is_enough(x: Any) -> None:
    assert view(x).array.tobytes() == bytes(x)


def test_dlpack_is_enough() -> None:
    data = np.arange(5, dtype=np.float32)
    seen = view(CpuArray(data))
    assert np.shares_memory(seen.array, data)


@pytest.mark.parametrize("x", [True, 3, 2.5, np.float32(1.5), np.int8(4), np.bool_(False)])
def test_numbers_stay_numbers_of_their_kind(x: Any) -> None:
    seen = view(x)
    back = seen.wrap(seen.array.copy())
    assert type(back) is type(x) and back == x


def test_arrays_of_jax_on_a_gpu_are_taken_by_dlpack(monkeypatch: pytest.MonkeyPatch) -> None:
    class JaxArray:
        __cuda_array_interface__ = "which does not say in the order of which stream"

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self, *, stream: int, **_: Any) -> Any:
            return f"asked for the order of stream {stream}"

    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(Array=JaxArray))
    with pytest.raises(TypeError, match="x: __dlpack__ has returned no capsule with a tensor"):
        view(JaxArray())


@pytest.mark.parametrize(
    "changed", [{"shape": (2.5,)}, {"shape": (-3,)}, {"shape": 3}, {"data": ("here", False)}]
)
def test_an_interface_that_is_wrong_is_said_to_be(changed: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="x: __cuda_array_interface__ of CupyLike is wrong"):
        view(CupyLike(**changed))


@pytest.mark.parametrize(
    "arguments", [(5,), ((-1,),), ((2.5,),), ((3,), object), ((3,), "U4")], ids=str
)
def test_a_device_array_needs_lengths_and_a_type_that_is_known(arguments: Any) -> None:
    with pytest.raises(TypeError, match=r"shape must be|not supported"):
        ronde.DeviceArray(*arguments)


@pytest.mark.parametrize("shape", [(2**61, 4), (2**62, 2**62), (0, 2**70)], ids=str)
def test_more_bytes_than_memory_can_have_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TypeError, match="has more bytes than memory can have"):
        ronde.DeviceArray(shape)
    with pytest.raises(TypeError, match=r"x: .*has more bytes than memory can have"):
        view(CupyLike(shape=shape))


def test_the_memory_of_another_device_is_refused_with_a_remedy() -> None:
    with pytest.raises(ronde.UnavailableError, match="copy it to the CPU first"):
        view(ArrayOfAnotherDevice())


def test_an_array_of_a_gpu_needs_its_driver() -> None:
    if ronde.cuda_available():
        with pytest.raises(ValueError, match="not that of a GPU"):
            view(CupyLike())
    else:
        with pytest.raises(ronde.UnavailableError, match=r"^x: .*NVIDIA driver|^x: .*no CUDA"):
            view(CupyLike())


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (CupyLike(strides=(8,)), "must be contiguous"),
        (CupyLike(data=None), "__cuda_array_interface__ of CupyLike is wrong"),
        (CupyLike(typestr="what"), "__cuda_array_interface__ of CupyLike is wrong"),
    ],
)
def test_arrays_of_a_gpu_that_cannot_be_taken(x: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        view(x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([1.0, 2.0], "np.asarray"),
        ("text", "not str"),
        (None, "not NoneType"),
        (object(), "not object"),
        (np.zeros(2, complex), "arrays of complex128 are not supported; supported types are bool"),
        (np.array(["a"]), "not supported"),
        (np.array([{}]), "arrays of object"),
        (np.zeros(2, "datetime64[s]"), "not supported"),
        (np.zeros(2, [("a", "i4")]), "not supported"),
        (1 << 80, "not supported"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_words(x: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        view(x)


@pytest.mark.parametrize("x", [b"frozen", np.broadcast_to(1.0, 3)])
def test_what_cannot_be_written_is_no_place_for_results(x: Any) -> None:
    with pytest.raises(ValueError, match="read only"):
        view(x, writable=True)
