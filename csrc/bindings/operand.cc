#include "bindings/operand.h"

#include <utility>

#include "bindings/arguments.h"
#include "bindings/arrays.h"

namespace py = pybind11;

namespace ronde {
namespace {

std::vector<std::int64_t> shape_of(const py::object& array, const OnDevice* device) {
  if (device) return device->shape;
  if (!py::isinstance<py::array>(array)) throw py::type_error("a NumPy array is needed");
  return ronde::shape_of(py::reinterpret_borrow<py::array>(array));
}

const OnDevice* device_of(const py::object& array) {
  return py::isinstance<OnDevice>(array) ? array.cast<const OnDevice*>() : nullptr;
}

}  // namespace

Operand::Operand(py::object given, DType type)
    : array(std::move(given)),
      dtype(type),
      shape(shape_of(array, device_of(array))),
      device_(device_of(array)) {}

py::array Operand::numpy() const { return py::reinterpret_borrow<py::array>(array); }

py::dtype Operand::numpy_dtype() const { return device_ ? device_->dtype : numpy().dtype(); }

bool Operand::writable() const { return device_ ? device_->writable : numpy().writeable(); }

ConstBuffer Operand::input() const { return device_ ? device_->buffer() : input_of(numpy()); }

Buffer Operand::output() const {
  if (!writable())
    throw py::value_error("the array is read only, and this operation works in place");
  if (device_) return device_->buffer();
  auto array = numpy();
  return output_of(array);
}

Operand Operand::like(const std::vector<std::int64_t>& of_shape) const {
  if (device_) return {device_->like(of_shape), dtype};
  const auto mine = numpy();
  return {new_array(mine.dtype(), of_shape, mine), dtype};
}

std::optional<Operand> operand_of(py::handle x, py::handle dtype) {
  const auto found = dtype.is_none() ? plain_dtype(x) : dtype.cast<DType>();
  if (!found) return {};
  return Operand(py::reinterpret_borrow<py::object>(x), *found);
}

Call call_of(const char* kind, py::handle name, const Operand& operand) {
  Call call;
  call.kind = kind;
  call.name = name_from(name);
  call.dtype = operand.dtype;
  call.shape = operand.shape;
  return call;
}

}  // namespace ronde
