#include "bindings/on_device.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "core/error.h"
#include "cuda/scratch.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

cuda::StreamHandle handle_of(std::uintptr_t stream) {
  return reinterpret_cast<cuda::StreamHandle>(stream);
}

std::size_t bytes_of(const std::vector<std::int64_t>& shape, const py::dtype& dtype) {
  return std::accumulate(shape.begin(), shape.end(), static_cast<std::size_t>(dtype.itemsize()),
                         std::multiplies<>());
}

}  // namespace

// Whatever asks the driver does it without the GIL: the driver may wait for what needs it, a
// callback of CuPy say.

OnDevice::OnDevice(py::object array, std::uintptr_t pointer, std::vector<std::int64_t> shape,
                   py::dtype dtype, DType type, bool writable, py::object make,
                   const Stream& stream, std::optional<int> gpu, const OnDevice* together)
    : array(std::move(array)),
      shape(std::move(shape)),
      dtype(std::move(dtype)),
      type(type),
      writable(writable),
      make_(std::move(make)),
      stream_(stream) {
  buffer_.bytes = bytes_of(this->shape, this->dtype);
  const WithoutGil release;
  buffer_.data = reinterpret_cast<std::byte*>(pointer);
  auto& device = bytes() ? cuda::Device::holding(buffer_.data)
                 : gpu   ? cuda::Device::get(*gpu)
                         : cuda::Device::current();
  if (together && &together->order_->device() == &device && together->stream_ == stream) {
    order_ = together->order_;
  } else {
    order_ = std::make_shared<cuda::Order>(device);
    if (stream) order_->begins_after(handle_of(*stream));
  }
  buffer_.device = {MemoryKind::cuda, device.ordinal(), order_.get()};
}

OnDevice::~OnDevice() {
  const WithoutGil release;
  order_.reset();
}

void OnDevice::hand_over(const Stream& stream) const {
  const WithoutGil release;
  if (stream)
    order_->order_before(handle_of(*stream));
  else
    order_->wait();
}

py::array OnDevice::read() const {
  if (bytes() == 0) return py::array(dtype, shape);
  std::unique_ptr<cuda::Scratch> pinned;
  {
    const WithoutGil release;
    auto& device = order_->device();
    const auto stream = cuda::stream_for_call(device);
    order_->begin_on(stream);
    auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned);
    pinned = std::make_unique<cuda::Scratch>(pool.take(stream, buffer_.bytes));
    device.copy(stream, pinned->data(), buffer_.data, buffer_.bytes);
    device.synchronise(stream);
    pinned->mark_idle();
  }
  auto* const data = pinned->data();
  const py::capsule owner(pinned.release(),
                          [](void* held) { delete static_cast<cuda::Scratch*>(held); });
  return py::array(dtype, shape, data, owner);
}

void OnDevice::write(const py::array& values, const Stream& stream) const {
  const auto from = input_of(values);
  if (from.bytes != buffer_.bytes) throw ArgumentError("the values are not of the array's size");
  if (bytes() == 0) return;
  {
    const WithoutGil release;
    auto& device = order_->device();
    const auto ours = cuda::stream_for_call(device);
    auto pinned = cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned).take(ours, from.bytes);
    std::copy_n(from.data, from.bytes, pinned.data());
    order_->begin_on(ours);
    device.copy(ours, buffer_.data, pinned.data(), from.bytes);
    order_->ends_after(ours);
  }
  hand_over(stream);
}

void OnDevice::copy_from(const OnDevice& other) const {
  if (bytes() == 0) return;
  const WithoutGil release;
  auto& device = order_->device();
  const auto stream = cuda::stream_for_call(device);
  order_->begin_on(stream);
  other.order_->begin_on(stream);
  device.copy(stream, buffer_.data, other.buffer_.data, buffer_.bytes);
  order_->begins_after(stream);
  other.order_->ends_after(stream);
}

void OnDevice::take(cuda::Received& received) const {
  const WithoutGil release;
  const auto stream = handle_of(stream_.value_or(0));
  received.move_to(buffer_.data, stream);
  order_->ends_after(stream);
}

void bind_on_device(py::module_& module) {
  py::class_<OnDevice>(module, "OnDevice", "An array of a GPU, as the core takes it.")
      .def(py::init<py::object, std::uintptr_t, std::vector<std::int64_t>, py::dtype, DType, bool,
                    py::object, OnDevice::Stream, std::optional<int>, const OnDevice*>(),
           "array"_a, "pointer"_a, "shape"_a, "dtype"_a, "type"_a, "writable"_a, "make"_a,
           "stream"_a, "gpu"_a = py::none(), "together"_a = nullptr)
      .def_readonly("array", &OnDevice::array)
      .def_property_readonly("shape",
                             [](const OnDevice& self) { return py::tuple(py::cast(self.shape)); })
      .def_readonly("dtype", &OnDevice::dtype)
      .def_readonly("type", &OnDevice::type)
      .def("like", &OnDevice::like, "shape"_a)
      .def_readonly("writable", &OnDevice::writable)
      .def_property_readonly(
          "pointer",
          [](const OnDevice& self) { return reinterpret_cast<std::uintptr_t>(self.buffer().data); })
      .def_property_readonly("device",
                             [](const OnDevice& self) { return self.buffer().device.number; })
      .def("hand_over", &OnDevice::hand_over, "stream"_a)
      .def("read", &OnDevice::read)
      .def("copy_from", &OnDevice::copy_from, "other"_a)
      .def("write", &OnDevice::write, "values"_a, "stream"_a);
}

}  // namespace ronde
