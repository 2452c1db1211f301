// What there is of CUDA: in this build, and on this machine.

#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <set>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "cuda/device.h"
#include "cuda/driver.h"
#include "cuda/images.h"
#include "cuda/nccl.h"

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

std::vector<std::string> uuids() {
  std::vector<std::string> all;
  for (int i = 0; i < cuda::Driver::get().devices(); ++i) {
    if (!cuda::Device::has_kernels(cuda::Device::ask(i).architecture)) continue;
    std::string digits;
    for (const char byte : cuda::Device::uuid(i)) {
      constexpr auto kDigits = "0123456789abcdef";
      const auto value = static_cast<unsigned char>(byte);
      digits += {kDigits[value / 16], kDigits[value % 16]};
    }
    all.push_back(digits);
  }
  return all;
}

/// Memory whose use is in the order of the default stream. Without the GIL, as the driver may wait
/// for what needs it, a callback of CuPy say.
class DeviceMemory {
 public:
  DeviceMemory(std::size_t bytes, int number) {
    const WithoutGil release;
    device_ = &cuda::Device::get(number);
    memory_ = std::make_unique<cuda::Memory>(*device_, cuda::Memory::Kind::device, bytes);
  }
  ~DeviceMemory() {
    const WithoutGil release;
    try {
      device_->synchronise(nullptr);
    } catch (...) {
      // A device that is lost does nothing with it any more.
    }
    memory_.reset();
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  std::uintptr_t pointer() const { return reinterpret_cast<std::uintptr_t>(memory_->data()); }

 private:
  cuda::Device* device_ = nullptr;
  std::unique_ptr<cuda::Memory> memory_;
};

}  // namespace

void bind_cuda(py::module_& module) {
  using namespace py::literals;
  module.def("cuda_architectures", &architectures,
             "What this build has kernels for: {90} for sm_90. Empty where it was built without.");
  module.def(
      "cuda_synchronise",
      [](int device, std::uintptr_t stream) {
        const WithoutGil release;
        cuda::Device::get(device).synchronise(reinterpret_cast<cuda::StreamHandle>(stream));
      },
      "device"_a, "stream"_a, "Waits for all that a stream of a GPU has been given.");
  py::class_<DeviceMemory>(module, "DeviceMemory", "Bytes of a GPU, which end with this.")
      .def(py::init<std::size_t, int>(), "bytes"_a, "device"_a = 0)
      .def_property_readonly("pointer", &DeviceMemory::pointer);
  module.def("cuda_driver_version", [] { return cuda::Driver::get().version(); });
  module.def("nccl_look_in", &cuda::Nccl::look_in, "file"_a,
             "Where NCCL is, if the process has not loaded one. Before its first use.");
  module.def("nccl_version", [] { return cuda::Nccl::get().version_text(); });
  module.def(
      "nccl_shares_gpus", [] { return cuda::Nccl::get().shares_gpus(); },
      "Whether several ranks may use one GPU.");
  module.def("cuda_uuids", &uuids,
             "Of the GPUs for which there are kernels, in hexadecimal digits: the same in all "
             "processes. Raises UnavailableError if there is no GPU.");
  module.def("cuda_devices", &devices,
             "Of each GPU its name, its architecture, and whether there are kernels for it. Raises "
             "UnavailableError if there is none.");
}

}  // namespace ronde
