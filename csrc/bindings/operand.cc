#include "bindings/operand.h"

#include <utility>

#include "bindings/arguments.h"
#include "bindings/arrays.h"

namespace py = pybind11;

namespace ronde {
namespace {

/// Null for an array of NumPy, which is asked for first: it is quicker to see.
const OnDevice* device_of(const py::object& array) {
  if (py::isinstance<py::array>(array)) return nullptr;
  if (!py::isinstance<OnDevice>(array)) throw py::type_error("a NumPy array is needed");
  return array.cast<const OnDevice*>();
}

}  // namespace

Operand::Operand(py::object given, DType type)
    : array(std::move(given)), dtype(type), device_(device_of(array)) {}

std::vector<std::int64_t> Operand::shape() const {
  return device_ ? device_->shape : shape_of(numpy());
}

py::array Operand::numpy() const { return py::reinterpret_borrow<py::array>(array); }

py::dtype Operand::numpy_dtype() const { return device_ ? device_->dtype : numpy().dtype(); }

bool Operand::writable() const { return device_ ? device_->writable : numpy().writeable(); }

ConstBuffer Operand::input() const { return device_ ? device_->buffer() : input_of(numpy()); }

ConstBuffer Operand::part() const { return device_ ? device_->part() : input(); }

Buffer Operand::output() const {
  if (!device_) {
    auto mine = numpy();
    return output_of(mine);
  }
  if (!writable())
    throw py::value_error("the array is read only, and this operation works in place");
  return device_->buffer();
}

py::object Operand::like(std::vector<std::int64_t> of_shape, cuda::Received& received) const {
  auto made = device_->like(of_shape);
  made.cast<const OnDevice&>().take(received);
  return made;
}

Operand Operand::like(std::vector<std::int64_t> of_shape) const {
  if (device_) return {device_->like(of_shape), dtype};
  const auto mine = numpy();
  return {new_array(mine.dtype(), std::move(of_shape), mine), dtype};
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
  call.shape = operand.shape();
  return call;
}

}  // namespace ronde
