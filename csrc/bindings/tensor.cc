#include "bindings/tensor.h"

#include <pybind11/stl.h>

#include <cstddef>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {

/// A dtype of torch.
struct TorchType {
  py::object torch;
  DType dtype;
  py::dtype numpy;
};

namespace {

/// What is known of torch once Python has met a tensor.
struct Torch {
  py::object tensor, parameter, strided, from_numpy, bfloat16;
  std::vector<TorchType> types;

  // Names of attributes and methods.
  py::str layout{"layout"}, is_cpu{"is_cpu"}, is_contiguous{"is_contiguous"}, is_neg{"is_neg"},
      dtype{"dtype"}, shape{"shape"}, data_ptr{"data_ptr"};

  bool is_plain(py::handle x) const {
    const auto type = reinterpret_cast<PyObject*>(Py_TYPE(x.ptr()));
    return (type == tensor.ptr() || type == parameter.ptr()) && of(x, layout).is(strided) &&
           holds(of(x, is_cpu)) && holds(call(x, is_contiguous)) && !holds(call(x, is_neg));
  }

  const TorchType* type_of(py::handle x) const {
    const auto found = of(x, dtype);
    for (const auto& each : types) {
      if (found.is(each.torch)) return &each;
    }
    return nullptr;
  }

  static py::object of(py::handle x, const py::str& name) {
    return checked(PyObject_GetAttr(x.ptr(), name.ptr()));
  }
  static py::object call(py::handle x, const py::str& name) {
    return checked(PyObject_CallMethodNoArgs(x.ptr(), name.ptr()));
  }
  static py::object checked(PyObject* result) {
    if (!result) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
  }
  static bool holds(const py::object& value) { return value.ptr() == Py_True; }
};

const Torch* torch = nullptr;  // made once, and never destroyed: the interpreter may have ended

void know_torch(const py::object& tensor, const py::object& parameter, const py::object& strided,
                const py::object& from_numpy, const py::object& bfloat16, const py::dict& types) {
  if (torch) return;
  auto* const known = new Torch{tensor, parameter, strided, from_numpy, bfloat16, {}};
  for (const auto& [theirs, dtype] : types) {
    const auto ours = dtype.cast<DType>();
    // NumPy has no bfloat16.
    const std::string name(ours == DType::bfloat16 ? "int16" : name_of(ours));
    known->types.push_back({py::reinterpret_borrow<py::object>(theirs), ours, py::dtype(name)});
  }
  torch = known;
}

}  // namespace

std::optional<Tensor> Tensor::of(py::handle x) {
  if (!torch || !torch->is_plain(x)) return {};
  const auto* const type = torch->type_of(x);
  if (!type) return {};
  const auto sizes = Torch::of(x, torch->shape);
  std::vector<std::int64_t> shape;
  auto bytes = static_cast<std::size_t>(type->numpy.itemsize());
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sizes.ptr()); ++i) {
    shape.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), i)));
    bytes *= static_cast<std::size_t>(shape.back());
  }
  const auto address = Torch::call(x, torch->data_ptr);
  auto* const data = static_cast<std::byte*>(PyLong_AsVoidPtr(address.ptr()));
  if (!data && bytes) throw py::type_error("the memory of this tensor has been freed");
  return Tensor(*type, std::move(shape), {data, bytes, {}});
}

DType Tensor::dtype() const { return type_->dtype; }

py::dtype Tensor::numpy_dtype() const { return type_->numpy; }

py::object Tensor::over(const py::array& array) const {
  auto tensor = torch->from_numpy(array);
  return dtype() == DType::bfloat16 ? tensor.attr("view")(torch->bfloat16) : tensor;
}

Tensor Tensor::like(py::array& array) const { return {*type_, shape_of(array), output_of(array)}; }

void bind_tensor(py::module_& module) {
  module.def("know_torch", &know_torch, "tensor"_a, "parameter"_a, "strided"_a, "from_numpy"_a,
             "bfloat16"_a, "types"_a,
             "From now on tensors of torch are taken as arrays of NumPy are.");
}

}  // namespace ronde
