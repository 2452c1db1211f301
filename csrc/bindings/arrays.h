// NumPy arrays as the core sees them.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bindings/gil.h"
#include "collective/communicator.h"
#include "core/buffer.h"
#include "core/bytes.h"
#include "core/dtype.h"

namespace ronde {

/// The element type of an array that the core can take as it is: exactly a NumPy array, contiguous,
/// aligned, of this machine's byte order and one of our types.
std::optional<DType> plain_dtype(pybind11::handle x);

ConstBuffer input_of(const pybind11::array& array);
/// Throws ValueError if the array is read only.
Buffer output_of(pybind11::array& array);

std::vector<std::int64_t> shape_of(const pybind11::array& array);

/// A new array of a dtype; in memory that all ranks of the machine can reach where `like` is.
pybind11::array new_array(const pybind11::dtype& dtype, std::vector<pybind11::ssize_t> shape,
                          ConstBuffer like);

/// Bytes in memory that the ranks of this machine can reach, in one dimension.
pybind11::array shared_array(std::size_t bytes);

/// A one-dimensional array of bytes that owns its memory.
pybind11::array array_of(Bytes bytes);

/// Text of the core, which may hold what is no UTF-8: names of files, say.
pybind11::str to_python(const std::string& text);

/// Runs a collective, without the GIL. If the communicator fails in it, messages may still be under
/// way, so the arrays live as long as the process.
template <class Body>
auto run_collective(Communicator& self, std::span<const pybind11::handle> arrays, Body body) {
  const bool usable = !self.failed();
  try {
    WithoutGil release;
    return body();
  } catch (...) {
    if (usable && self.failed()) {
      for (const auto& array : arrays) array.inc_ref();
    }
    throw;
  }
}

template <class Body>
auto run_collective(Communicator& self, std::initializer_list<pybind11::handle> arrays, Body body) {
  return run_collective(self, std::span(arrays.begin(), arrays.size()), body);
}

}  // namespace ronde
