// What there is of CUDA: in this build, and on this machine.

#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <set>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "cuda/device.h"
#include "cuda/driver.h"
#include "cuda/images.h"
#include "cuda/nccl.h"
#include "cuda/scratch.h"

namespace py = pybind11;

namespace ronde {
namespace {

std::set<int> architectures() {
  std::set<int> all;
  for (const auto& image : cuda::images()) all.insert(image.architecture);
  return all;
}

std::vector<std::tuple<std::string, int, bool>> devices() {
  std::vector<std::tuple<std::string, int, bool>> all;
  for (int i = 0; i < cuda::Driver::get().devices(); ++i) {
    const auto facts = cuda::Device::ask(i);
    all.emplace_back(facts.name, facts.architecture, cuda::Device::has_kernels(facts.architecture));
  }
  return all;
}

/// Without the GIL, as the driver may wait for what needs it, a callback of CuPy say.
class DeviceMemory {
 public:
  DeviceMemory(std::size_t bytes, int device) {
    WithoutGil release;
    memory_ = std::make_unique<cuda::Memory>(cuda::Device::get(device), cuda::Memory::Kind::device,
                                             bytes);
  }
  ~DeviceMemory() {
    WithoutGil release;
    memory_.reset();
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  std::uintptr_t pointer() const { return reinterpret_cast<std::uintptr_t>(memory_->data()); }

 private:
  std::unique_ptr<cuda::Memory> memory_;
};

cuda::StreamHandle stream_from(std::uintptr_t number) {
  return reinterpret_cast<cuda::StreamHandle>(number);
}

/// In pinned memory, so that the copy is as fast as the bus.
py::array read(std::uintptr_t at, std::size_t bytes, std::uintptr_t stream) {
  const auto* const memory = reinterpret_cast<const void*>(at);
  std::unique_ptr<cuda::Scratch> pinned;
  {
    WithoutGil release;
    const auto& device = cuda::Device::holding(memory);
    auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned);
    pinned = std::make_unique<cuda::Scratch>(pool.take(stream_from(stream), bytes));
    device.copy(stream_from(stream), pinned->data(), memory, bytes);
    device.synchronise(stream_from(stream));
    pinned->mark_idle();
  }
  auto* const data = pinned->data();
  const py::capsule owner(pinned.release(),
                          [](void* held) { delete static_cast<cuda::Scratch*>(held); });
  return py::array(py::dtype::of<std::uint8_t>(), {static_cast<py::ssize_t>(bytes)}, {1}, data,
                   owner);
}

void write(std::uintptr_t at, const py::array& from, std::uintptr_t stream) {
  auto* const memory = reinterpret_cast<void*>(at);
  const auto data = input_of(from);
  WithoutGil release;
  const auto& device = cuda::Device::holding(memory);
  device.copy(stream_from(stream), memory, data.data, data.bytes);
  device.synchronise(stream_from(stream));
}

}  // namespace

void bind_cuda(py::module_& module) {
  using namespace py::literals;
  module.def("cuda_architectures", &architectures,
             "What this build has kernels for: {90} for sm_90. Empty where it was built without.");
  module.def("cuda_read", &read, "pointer"_a, "bytes"_a, "stream"_a,
             "Bytes of a GPU, as the stream has them, once it has come to them.");
  module.def("cuda_write", &write, "pointer"_a, "array"_a, "stream"_a,
             "Writes a contiguous array to a GPU in the order of the stream, and waits for it.");
  module.def(
      "cuda_synchronise",
      [](int device, std::uintptr_t stream) {
        WithoutGil release;
        cuda::Device::get(device).synchronise(stream_from(stream));
      },
      "device"_a, "stream"_a, "Waits for all that a stream of a GPU has been given.");
  py::class_<DeviceMemory>(module, "DeviceMemory", "Bytes of a GPU, which end with this.")
      .def(py::init<std::size_t, int>(), "bytes"_a, "device"_a = 0)
      .def_property_readonly("pointer", &DeviceMemory::pointer);
  module.def(
      "cuda_device_of",
      [](std::uintptr_t at) {
        WithoutGil release;
        return cuda::Device::holding(reinterpret_cast<const void*>(at)).ordinal();
      },
      "pointer"_a, "The number of the GPU that holds this memory. Raises ValueError if none does.");
  module.def("cuda_driver_version", [] { return cuda::Driver::get().version(); });
  module.def("nccl_look_in", &cuda::Nccl::look_in, "file"_a,
             "Where NCCL is, if the process has not loaded one. Before its first use.");
  module.def("nccl_version", [] { return cuda::Nccl::get().version(); });
  module.def("cuda_devices", &devices,
             "Of each GPU its name, its architecture, and whether there are kernels for it. Raises "
             "UnavailableError if there is none.");
}

}  // namespace ronde
