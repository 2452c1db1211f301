// Tensors of torch in the memory of the host. Nothing here is compiled against torch: Python says
// what its classes are, and a tensor is asked for its address, type and shape by its methods.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/dtype.h"

namespace ronde {

struct TorchType;

class Tensor {
 public:
  /// What the core can take as it is: exactly a Tensor or a Parameter, dense, contiguous, on the
  /// host and of one of our types. Nothing for another object.
  static std::optional<Tensor> of(pybind11::handle x);

  DType dtype() const;
  const std::vector<std::int64_t>& shape() const { return shape_; }
  Buffer memory() const { return memory_; }
  /// Of the arrays that tensors of its type are made of.
  pybind11::dtype numpy_dtype() const;

  /// A tensor of its type over such an array; and what the core sees of it.
  pybind11::object over(const pybind11::array& array) const;
  Tensor like(pybind11::array& array) const;

 private:
  Tensor(const TorchType& type, std::vector<std::int64_t> shape, Buffer memory)
      : type_(&type), shape_(std::move(shape)), memory_(memory) {}

  const TorchType* type_;
  std::vector<std::int64_t> shape_;
  Buffer memory_;
};

}  // namespace ronde
