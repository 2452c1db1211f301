#include "bindings/arrays.h"

#include <functional>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "node/heap.h"

namespace py = pybind11;

namespace ronde {
namespace {

/// By NumPy's numbers of its types.
std::optional<DType> dtype_of(int number) {
  using Api = py::detail::npy_api;
  constexpr int kHalf = 23;  // which pybind11 does not name
  switch (number) {
    case Api::NPY_BOOL_:
      return DType::boolean;
    case Api::NPY_BYTE_:
      return DType::int8;
    case Api::NPY_UBYTE_:
      return DType::uint8;
    case Api::NPY_SHORT_:
      return DType::int16;
    case Api::NPY_USHORT_:
      return DType::uint16;
    case Api::NPY_INT_:
      return DType::int32;
    case Api::NPY_UINT_:
      return DType::uint32;
    case Api::NPY_LONG_:
      return sizeof(long) == 8 ? DType::int64 : DType::int32;
    case Api::NPY_ULONG_:
      return sizeof(long) == 8 ? DType::uint64 : DType::uint32;
    case Api::NPY_LONGLONG_:
      return DType::int64;
    case Api::NPY_ULONGLONG_:
      return DType::uint64;
    case kHalf:
      return DType::float16;
    case Api::NPY_FLOAT_:
      return DType::float32;
    case Api::NPY_DOUBLE_:
      return DType::float64;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<DType> plain_dtype(py::handle x) {
  using Api = py::detail::npy_api;
  if (reinterpret_cast<PyObject*>(Py_TYPE(x.ptr())) !=
      reinterpret_cast<PyObject*>(Api::get().PyArray_Type_))
    return std::nullopt;
  constexpr int kNeeded = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_;
  if ((py::detail::array_proxy(x.ptr())->flags & kNeeded) != kNeeded) return std::nullopt;
  const auto dtype = py::reinterpret_borrow<py::array>(x).dtype();
  if (const char order = dtype.byteorder(); order != '=' && order != '|') return std::nullopt;
  return dtype_of(dtype.num());
}

ConstBuffer input_of(const py::array& array) {
  return {static_cast<const std::byte*>(array.data()), static_cast<std::size_t>(array.nbytes())};
}

Buffer output_of(py::array& array) {
  if (!array.writeable())
    throw py::value_error("the array is read only, and this operation works in place");
  return {
      static_cast<std::byte*>(array.mutable_data()), static_cast<std::size_t>(array.nbytes()), {}};
}

std::vector<std::int64_t> shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

py::array new_array(const py::dtype& dtype, std::vector<py::ssize_t> shape, ConstBuffer like) {
  const auto count =
      std::accumulate(shape.begin(), shape.end(), py::ssize_t{1}, std::multiplies<>());
  const auto bytes = static_cast<std::size_t>(count * dtype.itemsize());
  if (like.bytes && Heap::instance().find(like.data, like.bytes)) {
    try {
      const auto memory = shared_array(bytes);
      return py::array(dtype, std::move(shape), memory.data(), memory);
    } catch (const UnavailableError&) {
      // Other memory will do: the notes of this rank say so, and no rank takes the direct route.
    }
  }
  // Of large arrays our memory is better than NumPy's: it is kept for the next.
  if (bytes < Bytes::kLarge) return py::array(dtype, std::move(shape));
  const auto memory = array_of(Bytes(bytes));
  return py::array(dtype, std::move(shape), memory.data(), memory);
}

py::array shared_array(std::size_t bytes) {
  std::byte* block = Heap::instance().allocate(bytes);
  const py::capsule owner(block,
                          [](void* held) { Heap::instance().free(static_cast<std::byte*>(held)); });
  return py::array(py::dtype::of<std::uint8_t>(), {static_cast<py::ssize_t>(bytes)}, {1}, block,
                   owner);
}

py::array array_of(Bytes bytes) {
  const auto size = static_cast<py::ssize_t>(bytes.size());
  const py::capsule owner(new Bytes(bytes), [](void* held) { delete static_cast<Bytes*>(held); });
  return py::array(py::dtype::of<std::uint8_t>(), {size}, {1}, bytes.data(), owner);
}

py::str to_python(const std::string& text) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
}

}  // namespace ronde
