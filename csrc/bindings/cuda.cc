// What there is of CUDA: in this build, and on this machine.

#include <pybind11/stl.h>

#include <set>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "cuda/device.h"
#include "cuda/driver.h"
#include "cuda/images.h"

namespace py = pybind11;

namespace ronde {
namespace {

std::set<int> architectures() {
  std::set<int> all;
  for (const auto& image : cuda::images()) all.insert(image.architecture);
  return all;
}

std::vector<std::tuple<std::string, int>> devices() {
  std::vector<std::tuple<std::string, int>> all;
  for (int i = 0; i < cuda::Driver::get().devices(); ++i) {
    const auto& device = cuda::Device::get(i);
    all.emplace_back(device.name(), device.architecture());
  }
  return all;
}

}  // namespace

void bind_cuda(py::module_& module) {
  using namespace py::literals;
  module.def("cuda_architectures", &architectures,
             "What this build has kernels for: {90} for sm_90. Empty where it was built without.");
  module.def("cuda_driver_version", [] { return cuda::Driver::get().version(); });
  module.def("cuda_devices", &devices,
             "Name and architecture of each GPU, which becomes ready for use. Raises "
             "UnavailableError if one cannot be used, or if there is none.");
}

}  // namespace ronde
