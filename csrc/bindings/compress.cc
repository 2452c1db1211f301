#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "compress/compressor.h"
#include "compress/low_rank.h"
#include "compress/quantiser.h"
#include "compress/random_k.h"
#include "compress/shared_scale.h"
#include "compress/table.h"
#include "compress/threshold.h"
#include "compress/top_k.h"
#include "core/error.h"
#include "kernels/kernels.h"

namespace py = pybind11;

namespace ronde {
namespace {

void check_floats(const py::array& array, const char* what) {
  if (plain_dtype(array) != DType::float32)
    throw ArgumentError(std::string(what) + " must be a contiguous array of float32");
}

std::span<const float> floats_of(const py::array& array, const char* what) {
  check_floats(array, what);
  return {static_cast<const float*>(array.data()), static_cast<std::size_t>(array.size())};
}

std::span<float> floats_to_write(py::array& array, const char* what) {
  check_floats(array, what);
  const Buffer buffer = output_of(array);
  return {reinterpret_cast<float*>(buffer.data), buffer.bytes / sizeof(float)};
}

/// Empty if there is none.
std::span<float> residual_of(std::optional<py::array>& residual, std::size_t count) {
  if (!residual) return {};
  const auto kept = floats_to_write(*residual, "the residual");
  if (kept.size() != count)
    throw ArgumentError("the residual has " + std::to_string(kept.size()) + " elements, not " +
                        std::to_string(count));
  return kept;
}

py::array encode(const Compressor& self, const py::array& values, std::optional<py::array> residual,
                 Draw draw) {
  const auto input = floats_of(values, "values");
  const auto kept = residual_of(residual, input.size());
  if (draw.first % self.grain())
    throw ArgumentError("a span begins at a multiple of the grain, " +
                        std::to_string(self.grain()) + ", not at " + std::to_string(draw.first));
  const Bytes payload(self.capacity(input.size()));
  std::size_t length;
  {
    WithoutGil release;
    length = self.encode(input, kept, draw, payload.data());
  }
  const py::ssize_t bytes = static_cast<py::ssize_t>(length);
  // A short one does not keep the memory of the longest that might have been.
  if (length < payload.size() / 2)
    return py::array_t<std::uint8_t>(bytes, payload.as<std::uint8_t>());
  const auto owner = array_of(payload);
  return py::array(py::dtype::of<std::uint8_t>(), {bytes}, {1}, owner.data(), owner);
}

void decode(const Compressor& self, const py::array& payload, py::array out, bool add) {
  if (plain_dtype(payload) != DType::uint8)
    throw ArgumentError("a payload is a contiguous array of uint8");
  const auto values = floats_to_write(out, "out");
  const ConstBuffer bytes = input_of(payload);
  WithoutGil release;
  self.decode({bytes.data, bytes.bytes}, values, add ? Store::add : Store::copy);
}

template <class T>
std::span<T> integers_of(py::array& array) {
  const Buffer buffer = output_of(array);
  return {reinterpret_cast<T*>(buffer.data), buffer.bytes / sizeof(T)};
}

/// Calls f with the integers of an array, int8 or int16.
template <class F>
void with_integers(py::array& array, F f) {
  const auto dtype = plain_dtype(array);
  if (dtype == DType::int8)
    f(integers_of<std::int8_t>(array));
  else if (dtype == DType::int16)
    f(integers_of<std::int16_t>(array));
  else
    throw ArgumentError("integers must be a contiguous array of int8 or int16");
}

void bind_shared_scale(py::module_& module) {
  py::class_<SharedScale, Compressor, std::shared_ptr<SharedScale>>(
      module, "SharedScale", "Integers of a step that all ranks share.")
      .def("integer", &SharedScale::integer, py::arg("ranks"))
      .def(
          "maxima",
          [](const SharedScale& self, const py::array& values, std::optional<py::array> residual) {
            const auto input = floats_of(values, "values");
            const auto left = residual_of(residual, input.size());
            py::array_t<float> maxima(static_cast<py::ssize_t>(self.blocks(input.size())));
            const std::span<float> found(maxima.mutable_data(), self.blocks(input.size()));
            {
              WithoutGil release;
              self.maxima(input, left, found);
            }
            return maxima;
          },
          py::arg("values"), py::arg("residual") = py::none())
      .def(
          "quantise",
          [](const SharedScale& self, const py::array& values, const py::array& maxima,
             const py::dtype& dtype, std::optional<py::array> residual, std::uint64_t key) {
            const auto input = floats_of(values, "values");
            const auto most = floats_of(maxima, "the maxima");
            const auto left = residual_of(residual, input.size());
            auto integers = new_array(dtype, {values.size()}, input_of(values));
            with_integers(integers, [&](auto out) {
              WithoutGil release;
              self.quantise(input, most, left, key, out);
            });
            return integers;
          },
          py::arg("values"), py::arg("maxima"), py::arg("dtype"), py::arg("residual") = py::none(),
          py::arg("key") = 0)
      .def(
          "dequantise",
          [](const SharedScale& self, py::array sums, const py::array& maxima, py::array out,
             double factor) {
            const auto most = floats_of(maxima, "the maxima");
            const auto to = floats_to_write(out, "out");
            with_integers(sums, [&]<class T>(std::span<T> from) {
              WithoutGil release;
              self.dequantise(std::span<const T>(from), most, factor, to);
            });
          },
          py::arg("sums"), py::arg("maxima"), py::arg("out"), py::arg("factor") = 1.0);
}

/// As many vectors as the rank, of one length.
template <class Fill>
py::array new_vectors(std::size_t rank, std::size_t length, Fill fill) {
  py::array_t<float> vectors({rank, length});
  const std::span<float> values(vectors.mutable_data(), rank * length);
  {
    WithoutGil release;
    fill(values);
  }
  return vectors;
}

void bind_low_rank(py::module_& module) {
  py::class_<LowRank>(module, "LowRank", "Products of matrices of one shape with a few vectors.")
      .def(py::init(
               [](std::size_t rows, std::size_t columns, std::size_t rank,
                  const std::string& simd) { return LowRank({rows, columns, rank}, table(simd)); }),
           py::arg("rows"), py::arg("columns"), py::arg("rank"), py::kw_only(),
           py::arg("simd") = "")
      .def(
          "project",
          [](const LowRank& self, const py::array& matrix, const py::array& right,
             std::optional<py::array> residual) {
            const auto from = floats_of(matrix, "the matrix"), by = floats_of(right, "right");
            const auto kept =
                residual ? floats_to_write(*residual, "the residual") : std::span<float>();
            return new_vectors(self.shape().rank, self.shape().rows,
                               [&](std::span<float> left) { self.project(from, kept, by, left); });
          },
          py::arg("matrix"), py::arg("right"), py::arg("residual") = py::none())
      .def(
          "back_project",
          [](const LowRank& self, const py::array& matrix, const py::array& left) {
            const auto from = floats_of(matrix, "the matrix"), by = floats_of(left, "left");
            return new_vectors(self.shape().rank, self.shape().columns,
                               [&](std::span<float> right) { self.back_project(from, by, right); });
          },
          py::arg("matrix"), py::arg("left"))
      .def(
          "reconstruct",
          [](const LowRank& self, const py::array& left, const py::array& right, py::array out,
             float factor, std::optional<py::array> residual, std::size_t ranks) {
            const auto from = floats_of(left, "left"), by = floats_of(right, "right");
            const auto kept =
                residual ? floats_to_write(*residual, "the residual") : std::span<float>();
            const auto to = floats_to_write(out, "out");
            WithoutGil release;
            self.reconstruct(from, by, to, factor, kept, ranks);
          },
          py::arg("left"), py::arg("right"), py::arg("out"), py::arg("factor") = 1.0f,
          py::arg("residual") = py::none(), py::arg("ranks") = 1);
  module.def(
      "orthogonalise",
      [](py::array vectors) {
        if (vectors.ndim() != 2) throw ArgumentError("vectors are the rows of a matrix");
        const auto values = floats_to_write(vectors, "vectors");
        const auto count = static_cast<std::size_t>(vectors.shape(0));
        WithoutGil release;
        return orthogonalise(values, count);
      },
      py::arg("vectors"));
}

}  // namespace

void bind_compress(py::module_& module) {
  py::enum_<Norm>(module, "Norm", "What the scale of a block is made of.")
      .value("max", Norm::max)
      .value("mean", Norm::mean)
      .value("l2", Norm::l2);
  py::enum_<Rounding>(module, "Rounding", "How values become integers.")
      .value("nearest", Rounding::nearest)
      .value("stochastic", Rounding::stochastic);

  module.def("compressor_names", &compressor_names);
  py::class_<Compressor, std::shared_ptr<Compressor>>(
      module, "Compressor", "Values to payloads and back; it has no state.")
      .def(py::init([](const std::string& name, const std::string& simd) {
             return std::shared_ptr<Compressor>(make_compressor(name, table(simd)));
           }),
           py::arg("name"), py::kw_only(), py::arg("simd") = "")
      .def_static(
          "linear",
          [](int bits, std::size_t block, Norm norm, Rounding rounding, const std::string& simd) {
            return std::shared_ptr<Compressor>(std::make_shared<Quantiser>(
                Quantisation{bits, block, norm, rounding}, table(simd)));
          },
          py::arg("bits"), py::arg("block") = 1024, py::arg("norm") = Norm::max,
          py::arg("rounding") = Rounding::nearest, py::kw_only(), py::arg("simd") = "")
      .def_static(
          "topk",
          [](double ratio, const std::string& simd) {
            return std::shared_ptr<Compressor>(std::make_shared<TopK>(ratio, table(simd)));
          },
          py::arg("ratio"), py::kw_only(), py::arg("simd") = "")
      .def_static(
          "block_topk",
          [](double ratio, std::size_t block, const std::string& simd) {
            return std::shared_ptr<Compressor>(
                std::make_shared<BlockTopK>(ratio, block, table(simd)));
          },
          py::arg("ratio"), py::arg("block") = 1024, py::kw_only(), py::arg("simd") = "")
      .def_static(
          "threshold",
          [](float value, const std::string& simd) {
            return std::shared_ptr<Compressor>(std::make_shared<Threshold>(value, table(simd)));
          },
          py::arg("value"), py::kw_only(), py::arg("simd") = "")
      .def_static(
          "randomk",
          [](double ratio, const std::string& simd) {
            return std::shared_ptr<Compressor>(std::make_shared<RandomK>(ratio, table(simd)));
          },
          py::arg("ratio"), py::kw_only(), py::arg("simd") = "")
      .def_static(
          "shared_scale",
          [](int bits, std::size_t block, Rounding rounding, const std::string& simd) {
            return std::make_shared<SharedScale>(bits, block, rounding, table(simd));
          },
          py::arg("bits"), py::arg("block") = 1024, py::arg("rounding") = Rounding::nearest,
          py::kw_only(), py::arg("simd") = "")
      .def_property_readonly("grain", &Compressor::grain)
      .def_property_readonly("unbiased", &Compressor::unbiased)
      .def_property_readonly("keeps_sums",
                             [](const Compressor& self) { return self.for_sums() != nullptr; })
      .def_property_readonly(
          "adds_up", [](const Compressor& self) { return self.summable_offset().has_value(); })
      .def("capacity", &Compressor::capacity, py::arg("count"))
      .def("capacity_of_whole", &Compressor::capacity_of_whole, py::arg("count"))
      .def(
          "for_vector",
          [](std::shared_ptr<Compressor> self, const py::array& values,
             std::optional<py::array> residual) {
            const auto input = floats_of(values, "values");
            auto found = self->for_vector(input, residual_of(residual, input.size()));
            return found ? std::const_pointer_cast<Compressor>(std::move(found)) : self;
          },
          py::arg("values"), py::arg("residual") = py::none())
      .def(
          "encode",
          [](const Compressor& self, const py::array& values, std::optional<py::array> residual,
             std::uint64_t key, std::uint64_t first) {
            return encode(self, values, std::move(residual), {key, first});
          },
          py::arg("values"), py::arg("residual") = py::none(), py::arg("key") = 0,
          py::arg("first") = 0)
      .def("decode", &decode, py::arg("payload"), py::arg("out"), py::arg("add") = false);
  bind_shared_scale(module);
  bind_low_rank(module);
}

}  // namespace ronde
