// What the caller says beside the arrays, checked.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "collective/communicator.h"
#include "core/dtype.h"
#include "core/reduction.h"

namespace ronde {

/// How the contributions of the ranks become one.
enum class Op { sum, average, min, max, product, adasum };

/// How Python shows a value.
std::string shown(pybind11::handle value);

/// The name of a call; empty for None. Throws TypeError for anything else that is no text.
std::string name_from(pybind11::handle name);

/// What the caller says of a reduction. Throws TypeError or ValueError where it cannot be.
struct Reducing {
  Reducing(const Communicator& communicator, pybind11::handle op_object, DType dtype,
           pybind11::handle prescale, pybind11::handle postscale);

  void describe(Call& call) const;
  void require_compressible() const;
  /// For collectives that reduce every element by itself; `kind` is which.
  void require_elementwise(const char* kind) const;

  Op op;
  Reduction reduction;
};

void bind_op(pybind11::module_& module);

}  // namespace ronde
