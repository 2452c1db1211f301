#include "kernels/kernels.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "core/error.h"

namespace py = pybind11;

namespace ronde {
const KernelTable& table(const std::string& simd) {
  if (simd.empty()) return kernels();
  if (const auto* found = kernels(simd.c_str())) return *found;
  throw ArgumentError("no kernels for the instruction set '" + simd + "' here");
}

namespace {

/// The addresses of arrays that all have `bytes` bytes.
template <class Address, class GetAddress>
std::vector<Address> addresses(std::vector<py::array>& arrays, std::size_t bytes,
                               GetAddress get_address) {
  std::vector<Address> found;
  for (auto& array : arrays) {
    if (static_cast<std::size_t>(array.nbytes()) != bytes)
      throw ArgumentError("the arrays differ in size");
    found.push_back(get_address(array));
  }
  return found;
}

void reduce_arrays(const Reduction& reduction, std::vector<py::array> outs,
                   std::vector<py::array> ins, bool streaming, const std::string& simd) {
  const auto& chosen = table(simd);
  if (outs.empty() || ins.empty()) throw ArgumentError("no arrays");
  const std::size_t bytes = ins[0].nbytes();
  const auto to = addresses<void*>(outs, bytes, [](py::array& x) { return x.mutable_data(); });
  const auto from = addresses<const void*>(ins, bytes, [](py::array& x) { return x.data(); });
  WithoutGil release;
  chosen.reduce_many(reduction, to, from, bytes / size_of(reduction.dtype), streaming);
}

void copy_array(py::array& to, const py::array& from, bool streaming, const std::string& simd) {
  if (to.nbytes() != from.nbytes()) throw ArgumentError("the arrays differ in size");
  const auto& chosen = table(simd);
  void* const target = to.mutable_data();
  WithoutGil release;
  chosen.copy(static_cast<std::byte*>(target), static_cast<const std::byte*>(from.data()),
              from.nbytes(), streaming);
}

/// How many elements each of two vectors has.
std::size_t floats_of_both(DType dtype, const py::array& left, const py::array& right) {
  if (!is_floating(dtype)) throw ArgumentError("a floating type is needed");
  if (left.nbytes() != right.nbytes()) throw ArgumentError("the arrays differ in size");
  return static_cast<std::size_t>(left.nbytes()) / size_of(dtype);
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
  module.def(
      "reduce_many",
      [](ReduceOp op, DType dtype, std::vector<py::array> outs, std::vector<py::array> ins,
         double prescale, double divisor, double postscale, bool streaming,
         const std::string& simd) {
        const bool scaled = prescale != 1.0 || divisor != 1.0 || postscale != 1.0;
        if (scaled && !is_floating(dtype)) throw ArgumentError("only floating types can be scaled");
        reduce_arrays({dtype, op, prescale, divisor, postscale}, std::move(outs), std::move(ins),
                      streaming, simd);
      },
      py::arg("op"), py::arg("dtype"), py::arg("outs"), py::arg("ins"), py::kw_only(),
      py::arg("prescale") = 1.0, py::arg("divisor") = 1.0, py::arg("postscale") = 1.0,
      py::arg("streaming") = false, py::arg("simd") = "",
      "ins[0] op ins[1] op ..., stored to each of outs; contiguous arrays whose bytes are of type "
      "dtype.");
  module.def(
      "mean",
      [](DType dtype, py::array& out, const py::array& left, int left_held, const py::array& right,
         int right_held, const std::string& simd) {
        if (!is_half(dtype)) throw ArgumentError("means are those of half types");
        if (left.nbytes() != out.nbytes() || right.nbytes() != out.nbytes())
          throw ArgumentError("the arrays differ in size");
        table(simd).mean(dtype, out.mutable_data(), {left.data(), left_held},
                         {right.data(), right_held}, out.nbytes() / size_of(dtype));
      },
      py::arg("dtype"), py::arg("out"), py::arg("left"), py::arg("left_held"), py::arg("right"),
      py::arg("right_held"), py::kw_only(), py::arg("simd") = "",
      "The mean of the contributions whose means are left and right.");
  module.def(
      "add_weighted",
      [](DType dtype, py::array& out, const py::array& left, double left_weight,
         const py::array& right, double right_weight, const std::string& simd) {
        const std::size_t count = floats_of_both(dtype, left, right);
        if (out.nbytes() != left.nbytes()) throw ArgumentError("the arrays differ in size");
        table(simd).add_weighted(dtype, out.mutable_data(), {left.data(), left_weight},
                                 {right.data(), right_weight}, count);
      },
      py::arg("dtype"), py::arg("out"), py::arg("left"), py::arg("left_weight"), py::arg("right"),
      py::arg("right_weight"), py::kw_only(), py::arg("simd") = "",
      "left x left_weight + right x right_weight, of a floating type.");
  module.def(
      "dots",
      [](DType dtype, const py::array& left, const py::array& right, const std::string& simd) {
        const std::size_t count = floats_of_both(dtype, left, right);
        const auto found = table(simd).dots(dtype, left.data(), right.data(), count);
        return py::make_tuple(found.left_left, found.left_right, found.right_right);
      },
      py::arg("dtype"), py::arg("left"), py::arg("right"), py::kw_only(), py::arg("simd") = "",
      "The dot products of left with itself, of left and right, and of right with itself, in "
      "double precision, of a floating type.");
  module.def("copy_bytes", &copy_array, py::arg("to"), py::arg("source"), py::kw_only(),
             py::arg("streaming") = false, py::arg("simd") = "",
             "Copies one array's bytes to another, around the caches where streaming.");
}

}  // namespace ronde
