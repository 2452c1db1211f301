#include "bindings/operand.h"

#include <utility>

#include "bindings/arguments.h"
#include "bindings/arrays.h"

namespace py = pybind11;

namespace ronde {
namespace {

/// Null for another array. Those of NumPy are asked for first: they are quicker to see.
const OnDevice* device_of(const py::object& array) {
  if (py::isinstance<py::array>(array) || !py::isinstance<OnDevice>(array)) return nullptr;
  return array.cast<const OnDevice*>();
}

std::optional<Tensor> tensor_of(const py::object& array, const OnDevice* device) {
  if (device || py::isinstance<py::array>(array)) return {};
  auto tensor = Tensor::of(array);
  if (!tensor) throw py::type_error("a NumPy array is needed");
  return tensor;
}

}  // namespace

Operand::Operand(py::object given, DType type)
    : array(std::move(given)),
      dtype(type),
      device_(device_of(array)),
      tensor_(tensor_of(array, device_)) {}

Operand::Operand(py::object given, Tensor tensor)
    : array(std::move(given)),
      dtype(tensor.dtype()),
      device_(nullptr),
      tensor_(std::move(tensor)) {}

std::vector<std::int64_t> Operand::shape() const {
  if (tensor_) return tensor_->shape();
  return device_ ? device_->shape : shape_of(numpy());
}

py::array Operand::numpy() const { return py::reinterpret_borrow<py::array>(array); }

py::dtype Operand::numpy_dtype() const {
  if (tensor_) return tensor_->numpy_dtype();
  return device_ ? device_->dtype : numpy().dtype();
}

py::object Operand::over(const py::array& values) const {
  return tensor_ ? tensor_->over(values) : py::object(values);
}

bool Operand::writable() const {
  if (tensor_) return true;
  return device_ ? device_->writable : numpy().writeable();
}

ConstBuffer Operand::input() const {
  if (tensor_) return tensor_->memory();
  return device_ ? device_->buffer() : input_of(numpy());
}

ConstBuffer Operand::part() const { return device_ ? device_->part() : input(); }

Buffer Operand::output() const {
  if (!writable())
    throw py::value_error("the array is read only, and this operation works in place");
  if (tensor_) return tensor_->memory();
  if (device_) return device_->buffer();
  auto mine = numpy();
  return output_of(mine);
}

py::object Operand::like(std::vector<std::int64_t> of_shape, cuda::Received& received) const {
  auto made = device_->like(of_shape);
  made.cast<const OnDevice&>().take(received);
  return made;
}

Operand Operand::like(std::vector<std::int64_t> of_shape) const {
  if (device_) return {device_->like(of_shape), dtype};
  auto made = new_array(numpy_dtype(), std::move(of_shape), input());
  if (tensor_) return Operand(tensor_->over(made), tensor_->like(made));
  return {std::move(made), dtype};
}

std::optional<Operand> operand_of(py::handle x, py::handle dtype) {
  return operand_of(x, dtype.is_none() ? std::nullopt : std::optional(dtype.cast<DType>()));
}

std::optional<Operand> operand_of(py::handle x, std::optional<DType> dtype) {
  auto array = py::reinterpret_borrow<py::object>(x);
  if (dtype) return Operand(std::move(array), *dtype);
  if (const auto found = plain_dtype(x)) return Operand(std::move(array), *found);
  if (auto tensor = Tensor::of(x)) return Operand(std::move(array), *std::move(tensor));
  return {};
}

Call call_of(const char* kind, py::handle name, const Operand& operand) {
  Call call;
  call.kind = kind;
  call.name = name_from(name);
  call.dtype = operand.dtype;
  call.shape = operand.shape();
  return call;
}

}  // namespace ronde
