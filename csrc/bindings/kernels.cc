#include "kernels/kernels.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "core/error.h"

namespace py = pybind11;

namespace ronde {
namespace {

const KernelTable& table(const std::string& simd) {
  if (simd.empty()) return kernels();
  if (const auto* found = kernels(simd.c_str())) return *found;
  throw ArgumentError("no kernels for the instruction set '" + simd + "' here");
}

void reduce_arrays(ReduceOp op, DType dtype, py::array& out, const py::array& left,
                   const py::array& right, const std::string& simd) {
  if (left.nbytes() != right.nbytes() || left.nbytes() != out.nbytes())
    throw ArgumentError("the arrays differ in size");
  table(simd).reduce[static_cast<int>(op)][static_cast<int>(dtype)](
      out.mutable_data(), left.data(), right.data(), out.nbytes() / size_of(dtype));
}

void scale_array(DType dtype, py::array& data, double factor, const std::string& simd,
                 bool divide) {
  const auto& kernels = divide ? table(simd).divide : table(simd).multiply;
  const auto kernel = kernels[static_cast<int>(dtype)];
  if (!kernel) throw ArgumentError("only floating types can be scaled");
  kernel(data.mutable_data(), factor, data.nbytes() / size_of(dtype));
}

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (const char* name : {"avx512", "avx2", "baseline"}) {
    if (kernels(name)) names.emplace_back(name);
  }
  return names;
}

}  // namespace

void bind_kernels(py::module_& module) {
  module.def("simd", [] { return kernels().name; }, "The instruction set in use.");
  module.def(
      "simd_levels", [] { return py::cast(simd_levels()); },
      "The instruction sets that this processor can run, best first.");
  module.def("reduce", &reduce_arrays, py::arg("op"), py::arg("dtype"), py::arg("out"),
             py::arg("left"), py::arg("right"), py::arg("simd") = "",
             "out = left op right, on contiguous arrays whose bytes are of type dtype.");
  module.def("scale", &scale_array, py::arg("dtype"), py::arg("data"), py::arg("factor"),
             py::arg("simd") = "", py::arg("divide") = false,
             "data *= factor, or data /= factor, in place.");
}

}  // namespace ronde
