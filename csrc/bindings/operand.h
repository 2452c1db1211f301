// The arrays of a call, and the call that they make.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "bindings/on_device.h"
#include "bindings/tensor.h"
#include "collective/call.h"
#include "core/buffer.h"
#include "core/dtype.h"

namespace ronde {

/// An array of the caller's, of NumPy, torch or a GPU, and what its bytes are.
class Operand {
 public:
  /// Throws TypeError for another object.
  Operand(pybind11::object given, DType type);
  explicit Operand(pybind11::object given, Tensor tensor);

  const pybind11::object array;
  const DType dtype;

  std::vector<std::int64_t> shape() const;
  std::size_t bytes() const { return input().bytes; }
  std::size_t item_bytes() const { return static_cast<std::size_t>(numpy_dtype().itemsize()); }
  /// Of its values on the host.
  pybind11::dtype numpy_dtype() const;
  /// An array of its kind, on the host, over such values.
  pybind11::object over(const pybind11::array& values) const;
  bool writable() const;
  bool on_gpu() const { return device_ != nullptr; }

  ConstBuffer input() const;
  /// The same of rows beside those of other ranks: on a GPU even where there are none.
  ConstBuffer part() const;
  /// Throws ValueError if it is read only.
  Buffer output() const;

  /// A new one of the same kind and dtype, of what a call has received on a GPU.
  pybind11::object like(std::vector<std::int64_t> of_shape, cuda::Received& received) const;
  /// A new one of the same kind and dtype.
  Operand like(std::vector<std::int64_t> of_shape) const;
  Operand like() const { return like(shape()); }

 private:
  pybind11::array numpy() const;

  const OnDevice* const device_;        // of one on a GPU
  const std::optional<Tensor> tensor_;  // of one of torch
};

/// Nothing where `x` has no dtype and is not plain.
std::optional<Operand> operand_of(pybind11::handle x, pybind11::handle dtype);
std::optional<Operand> operand_of(pybind11::handle x, std::optional<DType> dtype);

Call call_of(const char* kind, pybind11::handle name, const Operand& operand);

}  // namespace ronde
