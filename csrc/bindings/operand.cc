#include "bindings/operand.h"

#include "bindings/arguments.h"
#include "bindings/arrays.h"

namespace py = pybind11;

namespace ronde {

std::optional<Operand> operand_of(py::handle x, py::handle dtype) {
  const auto found = dtype.is_none() ? plain_dtype(x) : dtype.cast<DType>();
  if (!found) return {};
  if (!py::isinstance<py::array>(x)) throw py::type_error("a NumPy array is needed");
  return Operand{py::reinterpret_borrow<py::array>(x), *found};
}

Call call_of(const char* kind, py::handle name, const Operand& operand) {
  Call call;
  call.kind = kind;
  call.name = name_from(name);
  call.dtype = operand.dtype;
  call.shape = shape_of(operand.array);
  return call;
}

py::array new_like(const py::array& array) {
  return new_array(array.dtype(), shape_of(array), array);
}

}  // namespace ronde
