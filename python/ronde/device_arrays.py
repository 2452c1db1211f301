"""Arrays in the memory of GPUs, as collectives take them and give them back.

The core takes an `OnDevice`. What touches the memory runs in the order of the caller's stream: the values
are those that the stream has written when the call is made, and what is enqueued there after the call (of
an asynchronous one: after `wait`) sees the result. So the caller need not synchronise.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import UnavailableError

__all__ = [
    "DeviceArray",
    "OnDevice",
    "duplicate",
    "filled",
    "given",
    "no_dtype",
    "numpy_dtype",
    "on_device",
    "returned",
    "write_back",
]

Array = npt.NDArray[Any]
OnDevice = _core.OnDevice

_DEFAULT_STREAM = 1  # the legacy one, as __cuda_array_interface__ and DLPack call it
_ANY_STREAM = -1  # DLPack: nothing is to be ordered
_DLPACK_CUDA = 2
_BITS_OF_BFLOAT16 = np.dtype(np.int16)  # NumPy has no such type: its bits travel


class DeviceArray:
    """An array in the memory of a GPU, not filled, for whoever reads `__cuda_array_interface__`.

    That is what a collective returns for an array of a GPU that is of no library with a way to take it
    back. It has DLPack too: `cupy.from_dlpack`, `torch.from_dlpack` and `jax.numpy.from_dlpack` make theirs
    of it, and nothing is copied.

    Args:
        shape: of the array.
        dtype: one of those that collectives take.
        device: the number of the GPU.

    Raises:
        TypeError: the shape is no tuple of lengths, or has more bytes than memory can have, or the dtype is
            not supported.
        UnavailableError: there is no driver, or no such GPU.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, device: int = 0
    ) -> None:
        self.shape = _checked(shape)
        self.dtype: np.dtype[Any] = _native(np.dtype(dtype))
        self._device = device
        self._memory = _core.DeviceMemory(_bytes(self.shape, self.dtype), device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._memory.pointer, False),
            "version": 3,
            "stream": _DEFAULT_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self._device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """As the array API standard has it; `stream` comes after what was enqueued on the default one."""
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the array is given as it is, neither copied nor moved")
        if stream not in (None, _DEFAULT_STREAM, _ANY_STREAM):
            _core.cuda_order(self._device, _DEFAULT_STREAM, stream)
        versioned = max_version is not None and max_version[0] >= 1
        dtype = _core.DType.__members__[self.dtype.name]
        return _core.lend(
            self._memory, self._memory.pointer, self.shape, dtype, self._device, versioned
        )

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("this array is in the memory of a GPU; cupy.asarray(x).get() copies it")

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"


def on_device(x: Any, together: OnDevice | None = None) -> OnDevice | None:
    """Nothing if `x` is no array of a GPU. `together`: one of the same call, since which nothing has
    been enqueued. Raises `TypeError` for one that cannot be taken."""
    if isinstance(x, (np.ndarray, np.generic)):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _of_torch(x.detach(), torch, together) if x.device.type == "cuda" else None
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return _of_cupy(x, cupy, together)
    interface = _interface_of(x)
    if interface is not None:
        return _of_interface(x, interface, together)
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return _of_dlpack(x) if x.__dlpack_device__()[0] == _DLPACK_CUDA else None
    return None


def given(written: OnDevice) -> Any:
    """The array, which a call has written to, in the order of the caller's stream of now."""
    written.hand_over(_stream_of(written.array))
    return written.array


def returned(made: OnDevice, kind: OnDevice) -> Any:
    """The same of one that was made for a call, as an array of the library whose `kind` is."""
    array = given(made)
    if isinstance(array, DeviceArray) and not isinstance(kind.array, DeviceArray):
        namespace = getattr(kind.array, "__array_namespace__", None)
        if namespace is not None and hasattr(namespace(), "from_dlpack"):
            return namespace().from_dlpack(array)
    return array


def filled(like: OnDevice, values: Array) -> Any:
    """A new array of that kind with these values."""
    made = like.like(values.shape)
    made.write(np.ascontiguousarray(values), _stream_of(made.array))
    return returned(made, like)


def duplicate(x: OnDevice, copies: bool) -> OnDevice:
    """A new array like `x`, with its values if `copies`."""
    made = x.like(x.shape)
    if copies:
        made.copy_from(x)
    return made


def write_back(x: OnDevice, values: Array) -> None:
    """New values for the array."""
    x.write(np.ascontiguousarray(values), _stream_of(x.array))


def _stream_of(x: Any) -> int | None:
    """In whose order the memory of an array that was taken before may be touched now. None of one that
    DLPack has lent: it goes back when nothing touches it any more."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return int(torch.cuda.current_stream(x.device).cuda_stream)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        with x.device:  # whose stream is meant
            return int(cupy.cuda.get_current_stream().ptr)
    interface = _interface_of(x)
    stream: int | None = interface.get("stream") if interface else None
    return stream


def _interface_of(x: Any) -> dict[str, Any] | None:
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(x, jax.Array):
        return None  # it names no stream, and DLPack orders them
    interface: dict[str, Any] | None = getattr(x, "__cuda_array_interface__", None)
    return interface


def _of_torch(x: Any, torch: Any, together: OnDevice | None) -> OnDevice:
    if x.layout is not torch.strided:
        raise TypeError(f"a dense tensor is needed, not one of layout {x.layout}")
    _require_contiguous(x.is_contiguous())
    name = str(x.dtype).removeprefix("torch.")  # NumPy's too, where it has the type
    if name not in _core.DType.__members__:
        raise no_dtype(f"tensors of {x.dtype}")
    is_bfloat16 = name == "bfloat16"
    negated = x.is_neg()  # only marked: its memory has the values with the other sign
    if negated:
        x = x.resolve_neg()

    def new(shape: tuple[int, ...], _: int) -> Any:
        return torch.empty(shape, dtype=x.dtype, device=x.device)

    dtype = _BITS_OF_BFLOAT16 if is_bfloat16 else np.dtype(name)
    return _taken(
        x,
        x.data_ptr(),
        tuple(x.shape),
        dtype,
        is_bfloat16,
        not negated,
        new,
        _stream_of(x),
        x.device.index,
        None if negated else together,
    )


def _of_cupy(x: Any, cupy: Any, together: OnDevice | None) -> OnDevice:
    is_bfloat16 = x.dtype.name == "bfloat16"

    def new(shape: tuple[int, ...], _: int) -> Any:
        with x.device:
            return cupy.empty(shape, x.dtype)

    _require_contiguous(x.flags.c_contiguous)
    dtype = _BITS_OF_BFLOAT16 if is_bfloat16 else _native(x.dtype)
    return _taken(
        x,
        x.data.ptr,
        x.shape,
        dtype,
        is_bfloat16,
        True,
        new,
        _stream_of(x),
        x.device.id,
        together,
    )


def _of_interface(x: Any, interface: dict[str, Any], together: OnDevice | None) -> OnDevice:
    try:
        shape = _checked(interface["shape"])
        dtype = x.dtype if isinstance(x, DeviceArray) else np.dtype(interface["typestr"])
        pointer, read_only = interface["data"]
        pointer = operator.index(pointer)
    except (KeyError, TypeError, ValueError) as error:
        raise TypeError(
            f"__cuda_array_interface__ of {type(x).__name__} is wrong: {error!r}"
        ) from None
    if interface.get("mask") is not None:
        raise TypeError("a masked array has no value where it is masked; fill it first")
    strides = interface.get("strides")
    _require_contiguous(strides is None or _are_contiguous(strides, shape, dtype.itemsize))

    def new(shape: tuple[int, ...], device: int) -> Any:
        return DeviceArray(shape, dtype, device)

    dtype = _native(dtype)
    is_bfloat16 = dtype.name == "bfloat16"
    on_host = _BITS_OF_BFLOAT16 if is_bfloat16 else dtype
    stream = interface.get("stream")
    gpu = x._device if isinstance(x, DeviceArray) else None
    return _taken(
        x, pointer, shape, on_host, is_bfloat16, not read_only, new, stream, gpu, together
    )


def _of_dlpack(x: Any) -> OnDevice:
    try:
        capsule = x.__dlpack__(stream=_DEFAULT_STREAM, max_version=(1, 0))
    except TypeError:  # of before version 1
        capsule = x.__dlpack__(stream=_DEFAULT_STREAM)
    lent = _core.Lent(capsule)
    _require_contiguous(lent.is_contiguous)
    if lent.dtype is None:
        raise no_dtype(f"arrays of {x.dtype}")
    dtype = numpy_dtype(lent.dtype)
    is_bfloat16 = lent.dtype is _core.DType.bfloat16

    def new(shape: tuple[int, ...], _: int) -> Any:
        return DeviceArray(shape, dtype, lent.device)  # (so what is lent is held)

    on_host = _BITS_OF_BFLOAT16 if is_bfloat16 else dtype
    return _taken(
        x,
        lent.pointer,
        lent.shape,
        on_host,
        is_bfloat16,
        lent.writable,
        new,
        _DEFAULT_STREAM,
        lent.device,
    )


def _taken(
    x: Any,
    pointer: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    is_bfloat16: bool,
    writable: bool,
    new: Callable[[tuple[int, ...], int], Any],
    stream: int | None,
    gpu: int | None,
    together: OnDevice | None = None,
) -> OnDevice:
    """`dtype`: of its copies on the host; `new`: makes an array of its kind, of any shape, on a GPU; `gpu`:
    its own, where that is known."""

    def make(shape: list[int], device: int) -> OnDevice:  # (knows no OnDevice, which holds it)
        made = on_device(new(tuple(shape), device))
        assert made is not None
        return made

    _bytes(shape, dtype)
    core_type = _core.DType.bfloat16 if is_bfloat16 else _core.DType.__members__[dtype.name]
    try:
        return OnDevice(
            x, pointer, list(shape), dtype, core_type, writable, make, stream, gpu, together
        )
    except ValueError as error:  # it is not the memory of a GPU
        raise TypeError(str(error)) from None


def _checked(shape: Any) -> tuple[int, ...]:
    """Raises TypeError."""
    try:
        lengths = tuple(map(operator.index, shape))
    except TypeError:
        lengths = (-1,)
    if min(lengths, default=0) < 0:
        raise TypeError(f"shape must be a tuple of lengths, not {shape!r}") from None
    return lengths


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Raises TypeError."""
    size = math.prod(shape) * dtype.itemsize
    if max(size, *shape, 0) > sys.maxsize:
        raise TypeError(
            f"an array of shape {shape} and {dtype} has more bytes than memory can have"
        )
    return size


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if not dtype.isnative:
        raise TypeError(
            f"an array of a GPU must have the byte order of this machine, not {dtype.str}"
        )
    if dtype.name not in _core.DType.__members__:
        raise no_dtype(f"arrays of {dtype}")
    return dtype


def numpy_dtype(dtype: _core.DType) -> np.dtype[Any]:
    """Raises UnavailableError."""
    if dtype is not _core.DType.bfloat16:
        return np.dtype(dtype.name)
    try:
        import ml_dtypes
    except ImportError:
        raise UnavailableError(
            "bfloat16 arrays of NumPy need ml_dtypes: pip install ml_dtypes"
        ) from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def no_dtype(what: str) -> TypeError:
    names = ", ".join(_core.DType.__members__)
    return TypeError(f"{what} are not supported; supported types are {names}")


def _are_contiguous(strides: tuple[int, ...], shape: tuple[int, ...], itemsize: int) -> bool:
    """Dimensions of one element may have any stride."""
    if len(strides) != len(shape):
        return False
    expected = [itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return all(
        length == 1 or have == want
        for length, have, want in zip(shape, strides, expected, strict=True)
    )


def _require_contiguous(is_contiguous: bool) -> None:
    if not is_contiguous:
        raise TypeError(
            "an array of a GPU must be contiguous: pass x.copy() of CuPy, x.contiguous() of torch"
        )
