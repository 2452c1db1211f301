// The arrays of a call, and the call that they make.
#pragma once

#include <pybind11/numpy.h>

#include <optional>

#include "collective/call.h"
#include "core/dtype.h"

namespace ronde {

/// An array of the caller's, and what its bytes are.
struct Operand {
  pybind11::array array;
  DType dtype;
};

/// Nothing where `x` has no dtype and is not plain.
std::optional<Operand> operand_of(pybind11::handle x, pybind11::handle dtype);

Call call_of(const char* kind, pybind11::handle name, const Operand& operand);

pybind11::array new_like(const pybind11::array& array);

}  // namespace ronde
