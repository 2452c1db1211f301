// Memory of GPUs from and for other libraries, by DLPack.

#include "bindings/dlpack.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "core/dtype.h"
#include "core/error.h"
#include "cuda/order.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

dlpack::DataType type_of(DType dtype) {
  const auto code = [&] {
    if (dtype == DType::boolean) return dlpack::kBool;
    if (dtype == DType::bfloat16) return dlpack::kBfloat;
    if (is_floating(dtype)) return dlpack::kFloat;
    return dtype >= DType::uint8 ? dlpack::kUint : dlpack::kInt;
  }();
  return {code, static_cast<std::uint8_t>(8 * size_of(dtype)), 1};
}

std::optional<DType> dtype_of(const dlpack::DataType& type) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (type_of(dtype) == type) return dtype;
  }
  return {};
}

/// An array that another library lends, until this ends.
class Lent {
 public:
  /// Takes what `capsule` has. Throws TypeError for what is none, or has been taken.
  explicit Lent(const py::object& capsule) {
    if (!take<dlpack::Versioned>(capsule) && !take<dlpack::Managed>(capsule))
      throw py::type_error("__dlpack__ has returned no capsule with a tensor");
  }

  std::uintptr_t pointer() const {
    return reinterpret_cast<std::uintptr_t>(tensor_->data) + tensor_->byte_offset;
  }
  int device() const { return tensor_->device.number; }
  std::vector<std::int64_t> shape() const {
    return {tensor_->shape, tensor_->shape + tensor_->dimensions};
  }
  std::optional<DType> dtype() const { return dtype_of(tensor_->dtype); }
  /// Who does not know version 1 does not say so.
  bool writable() const { return writable_; }
  bool is_contiguous() const {
    if (!tensor_->strides) return true;
    std::int64_t expected = 1, elements = 1;
    bool in_order = true;
    for (int i = tensor_->dimensions - 1; i >= 0; --i) {
      in_order &= tensor_->shape[i] == 1 || tensor_->strides[i] == expected;
      expected *= tensor_->shape[i];
      elements *= tensor_->shape[i];
    }
    return in_order || elements == 0;
  }

 private:
  template <class T>
  bool take(const py::object& capsule) {
    if (!PyCapsule_IsValid(capsule.ptr(), T::kName)) return false;
    auto* const managed = static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), T::kName));
    if constexpr (requires { managed->flags; }) {
      if (managed->major != 1)
        throw py::type_error("__dlpack__ has returned a tensor of a version that is not known: " +
                             std::to_string(managed->major));
      writable_ = !(managed->flags & T::kReadOnly);
    }
    if (PyCapsule_SetName(capsule.ptr(), T::kTaken)) throw py::error_already_set();
    tensor_ = {&managed->tensor, [managed](const dlpack::Tensor*) {
                 if (managed->end) managed->end(managed);
               }};
    return true;
  }

  std::shared_ptr<const dlpack::Tensor> tensor_;
  bool writable_ = false;
};

/// What is lent: as much as others read of it, and what it needs.
template <class T>
struct Loan {
  T managed{};
  std::vector<std::int64_t> shape;
  py::object owner;
};

template <class T>
py::capsule lend(py::object owner, std::uintptr_t pointer, std::vector<std::int64_t> shape,
                 DType dtype, int device) {
  auto loan = std::make_unique<Loan<T>>();
  loan->shape = std::move(shape);
  loan->owner = std::move(owner);
  auto& managed = loan->managed;
  managed.tensor = {.data = reinterpret_cast<void*>(pointer),
                    .device = {dlpack::kCuda, device},
                    .dimensions = static_cast<std::int32_t>(loan->shape.size()),
                    .dtype = type_of(dtype),
                    .shape = loan->shape.data(),
                    .strides = nullptr,
                    .byte_offset = 0};
  if constexpr (requires { managed.flags; }) managed.major = 1;
  managed.context = loan.get();
  managed.end = [](T* self) {         // on any thread
    if (!Py_IsInitialized()) return;  // the process is ending
    const WithGil held;
    delete static_cast<Loan<T>*>(self->context);
  };
  py::capsule capsule(&managed, T::kName, [](PyObject* ended) {
    if (!PyCapsule_IsValid(ended, T::kName)) return;  // it was taken
    auto* const left = static_cast<T*>(PyCapsule_GetPointer(ended, T::kName));
    left->end(left);
  });
  loan.release();
  return capsule;
}

}  // namespace

void bind_dlpack(py::module_& module) {
  py::class_<Lent>(module, "Lent", "An array of a GPU that another library lends by DLPack.")
      .def(py::init<const py::object&>(), "capsule"_a)
      .def_property_readonly("pointer", &Lent::pointer)
      .def_property_readonly("device", &Lent::device)
      .def_property_readonly("shape",
                             [](const Lent& self) { return py::tuple(py::cast(self.shape())); })
      .def_property_readonly("dtype", &Lent::dtype)
      .def_property_readonly("writable", &Lent::writable)
      .def_property_readonly("is_contiguous", &Lent::is_contiguous);
  module.def(
      "lend",
      [](py::object owner, std::uintptr_t pointer, std::vector<std::int64_t> shape, DType dtype,
         int device, bool versioned) {
        const auto lend_as = versioned ? &lend<dlpack::Versioned> : &lend<dlpack::Managed>;
        return lend_as(std::move(owner), pointer, std::move(shape), dtype, device);
      },
      "owner"_a, "pointer"_a, "shape"_a, "dtype"_a, "device"_a, "versioned"_a,
      "A capsule of DLPack for memory of a GPU, which keeps `owner`.");
  module.def(
      "cuda_order",
      [](int device, std::uintptr_t before, std::uintptr_t after) {
        const WithoutGil release;
        cuda::Event reached(cuda::Device::get(device));
        reached.record(reinterpret_cast<cuda::StreamHandle>(before));
        reached.order_before(reinterpret_cast<cuda::StreamHandle>(after));
      },
      "device"_a, "before"_a, "after"_a,
      "What a stream of a GPU is given from now on comes after what another has been given.");
}

}  // namespace ronde
