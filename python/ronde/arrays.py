"""Arrays of any kind in, arrays of the same kind out.

`view(x)` shows the memory of whatever was passed as a contiguous NumPy array, with the element type that
the native core knows. Nothing is copied where the memory is contiguous already. torch is recognised
without being imported.
"""

from __future__ import annotations

import sys
from array import array as PythonArray
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import _core
from .device_arrays import (
    OnDevice,
    duplicate,
    filled,
    given,
    no_dtype,
    numpy_dtype,
    on_device,
    returned,
    write_back,
)
from .errors import UnavailableError

__all__ = [
    "ArrayLike",
    "View",
    "is_floating",
    "is_torch",
    "know_torch",
    "listed",
    "make",
    "view",
    "views",
]

T = TypeVar("T")

DType = _core.DType
Array = npt.NDArray[Any]
ArrayLike = Any  # NumPy, torch, CuPy, anything with DLPack or the buffer protocol, numbers

# NumPy calls it "bool" like the core; the others have the same names too.
_DTYPES: dict[str, DType] = dict(DType.__members__)
_FLOATING = {DType.float16, DType.bfloat16, DType.float32, DType.float64}
_DLPACK_CPU = 1


def is_floating(dtype: DType) -> bool:
    return dtype in _FLOATING


@dataclass
class View:
    """What was passed, as the core sees it."""

    operand: Array | OnDevice  # contiguous, native byte order, its bytes are of type `dtype`
    dtype: DType
    shape: tuple[int, ...]
    wrap: Callable[[Any], Any]  # makes an array of the kind that came in from one like `operand`
    # What came in, for results in place: a writable view of it, or None if it is read only.
    source: Array | OnDevice | None

    @cached_property
    def array(self) -> Array:
        """The values on the host: `operand`, or a copy of what is on a GPU."""
        operand = self.operand
        return operand.read() if isinstance(operand, OnDevice) else operand

    @property
    def address(self) -> int:
        """Of the first element of `operand`."""
        operand = self.operand
        return operand.pointer if isinstance(operand, OnDevice) else operand.ctypes.data

    @property
    def is_copy(self) -> bool:
        return self.source is None or self.operand is not self.source

    def duplicate(self, *, copies: bool) -> Array | OnDevice:
        """Another operand like this one; with the same values if `copies`."""
        if isinstance(self.operand, OnDevice):
            return duplicate(self.operand, copies)
        return np.array(self.operand)

    def give_back(self) -> None:
        """After an operation that has no result here."""
        if isinstance(self.operand, OnDevice):
            given(self.operand)

    def write_back(self) -> None:
        """After an operation in place on `operand` or `array`: brings the result to where it belongs."""
        if isinstance(self.source, OnDevice):
            if "array" in vars(self):
                write_back(self.source, self.array)
            else:
                given(self.source)
        elif self.is_copy:
            assert self.source is not None
            self.source[...] = self.array


def view(
    x: ArrayLike, what: str = "x", *, writable: bool = False, together: View | None = None
) -> View:
    """`x` as the core sees it. `together`: one of the same call, made just before.

    Raises `TypeError` for what is no array or has elements of another type, `ValueError` if it must be
    writable and is not, `UnavailableError` for memory of a device that is no GPU of CUDA. `what`: the
    argument, in these errors.
    """
    try:
        before = together.operand if together else None
        device = on_device(x, before if isinstance(before, OnDevice) else None)
        if device is not None:
            return _view_of_device(device, what, writable)
        array, dtype, wrap = _open(x)
    except (TypeError, UnavailableError) as error:
        raise type(error)(f"{what}: {error}") from None
    if writable and not array.flags.writeable:
        if isinstance(x, (bool, int, float, np.generic)):
            raise TypeError(
                f"{what}: a number ({x!r}) cannot be changed in place; pass an array, np.asarray({x!r}), or "
                "use a function that returns the result: allreduce, broadcast, broadcast_object"
            )
        raise ValueError(f"{what}: the array is read only, and this operation works in place")
    shape = array.shape
    contiguous = array
    if not array.dtype.isnative:
        contiguous = array.astype(array.dtype.newbyteorder("="))
    if not (contiguous.flags.c_contiguous and contiguous.flags.aligned):
        contiguous = contiguous.copy()  # (ascontiguousarray would make one dimension of none)
    source = array if array.flags.writeable else None
    return View(contiguous, dtype, shape, wrap, source)


def _view_of_device(device: OnDevice, what: str, writable: bool) -> View:
    if writable and not device.writable:
        raise ValueError(f"{what}: the array is read only, and this operation works in place")

    def wrap(out: Array | OnDevice) -> Any:
        given(device)  # what the call still reads may be written to from now on
        return returned(out, device) if isinstance(out, OnDevice) else filled(device, out)

    source = device if device.writable else None
    return View(device, device.type, device.shape, wrap, source)


def views(
    xs: Iterable[ArrayLike],
    what: Callable[[int], str] = "xs[{}]".format,
    *,
    writable: bool = False,
) -> list[View]:
    """The same of each array of a group `xs`. `what`: how errors call one of them."""
    seen: list[View] = []
    for i, x in enumerate(xs):
        seen.append(view(x, what(i), writable=writable, together=seen[-1] if seen else None))
    return seen


def listed(xs: Iterable[T]) -> list[T]:
    """The arrays of a group `xs`. Raises `TypeError` for what is none."""
    if isinstance(xs, Mapping):
        raise TypeError("xs must be a list of arrays, not a dictionary: pass list(xs.values())")
    if isinstance(xs, (str, bytes)) or not isinstance(xs, Iterable):
        raise TypeError(f"xs must be a list of arrays, not {xs!r}")
    return list(xs)


def _open(x: ArrayLike) -> tuple[Array, DType, Callable[[Array], Any]]:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("a masked array has no value where it is masked; fill it first")
    if isinstance(x, np.ndarray):
        return np.asarray(x), _dtype_of(x), _as_is
    if isinstance(x, np.generic):
        return _number(x, lambda number: number)
    if isinstance(x, (bool, int, float)):
        return _number(x, type(x))
    if is_torch(x):
        return _open_torch(x, sys.modules["torch"])
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return _open_dlpack(x)
    try:
        memory = memoryview(x)
    except TypeError:
        raise TypeError(
            f"an array is needed (NumPy, torch, or anything with DLPack or the buffer protocol), "
            f"not {type(x).__name__}{_hint(x)}"
        ) from None
    try:
        array = np.asarray(memory)
    except ValueError:  # NumPy knows no such format
        raise no_dtype(f"elements of format {memory.format!r}") from None
    if isinstance(x, PythonArray):
        return array, _dtype_of(array), lambda out: PythonArray(x.typecode, out.tobytes())
    if isinstance(x, memoryview):
        return array, _dtype_of(array), lambda out: memoryview(out)
    return array, _dtype_of(array), _as_is


def _hint(x: Any) -> str:
    if isinstance(x, (list, tuple)):
        return "; np.asarray makes an array of it"
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(x, jax.core.Tracer):
        return "; call it outside of jax.jit and the like, where there are arrays"
    return ""


def _as_is(out: Array) -> Array:
    return out


def _number(x: Any, convert: Callable[[Any], Any]) -> tuple[Array, DType, Callable[[Array], Any]]:
    array = np.array(x)
    dtype = _dtype_of(array)
    array.flags.writeable = False  # a number cannot be changed in place
    # Collectives that make a vector of numbers (allgather) return an array.
    return array, dtype, lambda out: convert(out[()]) if out.ndim == 0 else out


def _dtype_of(array: Array) -> DType:
    try:
        return _DTYPES[array.dtype.name]
    except KeyError:
        raise no_dtype(f"arrays of {array.dtype}") from None


@cache
def know_torch(torch: Any) -> None:
    """From now on the core takes dense tensors of the host as they are."""
    types = {getattr(torch, name): dtype for name, dtype in _DTYPES.items() if hasattr(torch, name)}
    _core.know_torch(
        torch.Tensor,
        torch.nn.Parameter,
        torch.strided,
        torch.from_numpy,
        torch.bfloat16,
        types,
    )


def _open_torch(x: Any, torch: Any) -> tuple[Array, DType, Callable[[Array], Any]]:
    know_torch(torch)
    if x.device.type != "cpu":  # and no GPU of CUDA
        raise UnavailableError(f"this tensor is on {x.device}; copy it to the CPU first")
    if x.layout is not torch.strided:
        raise TypeError(f"a dense tensor is needed, not one of layout {x.layout}")
    x = x.detach()
    if x.numel() and not x.data_ptr():  # NumPy would read there
        raise TypeError("the memory of this tensor has been freed")
    if x.dtype is torch.bfloat16:  # NumPy has no such type: its bits travel
        return x.view(torch.int16).numpy(), DType.bfloat16, _bfloat16_tensor
    try:
        array = x.resolve_conj().resolve_neg().numpy()
    except TypeError:
        raise no_dtype(f"tensors of {x.dtype}") from None
    if (
        x.is_neg()
    ):  # a view whose values are those of its memory with the other sign: this is a copy
        array.flags.writeable = False
    return array, _dtype_of(array), torch.from_numpy


def _bfloat16_tensor(bits: Array) -> Any:
    import torch

    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def make(data: Array, dtype: DType, shape: tuple[int, ...], *, torch: bool) -> Any:
    """An array of this element type over `data`, which is bytes: of NumPy or of torch."""
    if torch and dtype is DType.bfloat16:
        return _bfloat16_tensor(data.view(np.int16).reshape(shape))
    array = data.view(numpy_dtype(dtype)).reshape(shape)
    if not torch:
        return array
    import torch as torch_module

    return torch_module.from_numpy(array)


def is_torch(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _open_dlpack(x: Any) -> tuple[Array, DType, Callable[[Array], Any]]:
    kind, _ = x.__dlpack_device__()
    if kind != _DLPACK_CPU:
        raise UnavailableError("this array is in the memory of a device; copy it to the CPU first")
    namespace = x.__array_namespace__() if hasattr(x, "__array_namespace__") else np
    try:
        array = np.from_dlpack(x)
    except (BufferError, RuntimeError):  # NumPy's DLPack has no bfloat16, but JAX' arrays convert
        array = np.asarray(x)
        return array, _dtype_of(array), getattr(namespace, "asarray", _as_is)
    return array, _dtype_of(array), getattr(namespace, "from_dlpack", _as_is)
