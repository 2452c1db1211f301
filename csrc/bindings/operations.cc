// The collectives as Python's public functions call them: an array in, an array out. What a call is
// (call.h) is made here and not in Python, where it would take longer than a short collective.
// Groups of arrays are in groups.cc.
//
// An array comes with the dtype of its bytes, or without one if it is plain (arrays.h). Roots come
// as ranks of the set, and as ranks of the job for the eyes of the user.

#include "bindings/operations.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "collective/communicator.h"
#include "core/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

DType dtype_from(const py::array& array, const std::optional<DType>& dtype) {
  if (dtype) return *dtype;
  if (const auto plain = plain_dtype(array)) return *plain;
  throw py::type_error("a plain array is needed, or its dtype");
}

Call call_of(const char* kind, py::handle name, DType dtype, const py::array& array) {
  Call call;
  call.kind = kind;
  call.name = name_from(name);
  call.dtype = dtype;
  call.shape = shape_of(array);
  return call;
}

py::array allreduce(Communicator& self, const py::array& input, std::optional<py::array> output,
                    const std::optional<DType>& given, py::handle op, py::handle name,
                    py::handle prescale, py::handle postscale) {
  const DType dtype = dtype_from(input, given);
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call = call_of("allreduce", name, dtype, input);
  reducing.describe(call);
  py::array result = output ? std::move(*output) : new_array(input.dtype(), shape_of(input), input);
  const Piece piece{input_of(input), output_of(result)};
  run_collective(self, {input, result},
                 [&] { self.allreduce(call, {&piece, 1}, reducing.reduction); });
  return result;
}

py::object reduce(Communicator& self, const py::array& input, const std::optional<DType>& given,
                  int root, int shown_root, py::handle op, py::handle name, py::handle prescale,
                  py::handle postscale) {
  const DType dtype = dtype_from(input, given);
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call = call_of("reduce", name, dtype, input);
  call.root = shown_root;
  reducing.describe(call);
  py::object result = py::none();
  Buffer output;
  if (self.rank() == root) {
    auto array = new_array(input.dtype(), shape_of(input), input);
    output = output_of(array);
    result = std::move(array);
  }
  const auto in = input_of(input);
  run_collective(self, {input, result},
                 [&] { self.reduce(call, in, output, reducing.reduction, root); });
  return result;
}

/// The rows that each rank gets of so many: as even as possible, lower ranks first.
std::vector<std::size_t> even_rows(std::size_t rows, int size) {
  std::vector<std::size_t> result;
  for (int rank = 0; rank < size; ++rank)
    result.push_back(rows / size + (static_cast<std::size_t>(rank) < rows % size));
  return result;
}

std::size_t row_elements(const py::array& array) {
  std::size_t elements = 1;
  for (py::ssize_t i = 1; i < array.ndim(); ++i)
    elements *= static_cast<std::size_t>(array.shape(i));
  return elements;
}

std::size_t row_bytes(const py::array& array) {
  return row_elements(array) * static_cast<std::size_t>(array.itemsize());
}

py::array reducescatter(Communicator& self, const py::array& input,
                        const std::optional<DType>& given, py::handle op, py::handle name,
                        py::handle prescale, py::handle postscale) {
  const DType dtype = dtype_from(input, given);
  if (input.ndim() == 0)
    throw py::type_error("reducescatter needs an array of at least one dimension");
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call = call_of("reducescatter", name, dtype, input);
  reducing.describe(call);
  auto counts = even_rows(static_cast<std::size_t>(input.shape(0)), self.size());
  auto shape = shape_of(input);
  shape[0] = static_cast<std::int64_t>(counts[self.rank()]);
  py::array result = new_array(input.dtype(), shape, input);
  for (auto& count : counts) count *= row_elements(input);
  const auto in = input_of(input);
  const auto out = output_of(result);
  run_collective(self, {input, result}, [&] {
    self.reduce_scatter(call, in, out, Chunks::of(counts), reducing.reduction);
  });
  return result;
}

void broadcast(Communicator& self, py::array& data, const std::optional<DType>& given, int root,
               int shown_root, py::handle name) {
  Call call = call_of("broadcast", name, dtype_from(data, given), data);
  call.root = shown_root;
  const auto buffer = output_of(data);
  run_collective(self, {data}, [&] { self.broadcast(call, buffer, root); });
}

/// What came, as an array of rows like those of `mine`.
py::array rows_like(const py::array& mine, std::size_t rows, Bytes data) {
  auto shape = shape_of(mine);
  if (shape.empty()) shape.push_back(0);
  shape[0] = static_cast<std::int64_t>(rows);
  const auto bytes = array_of(std::move(data));
  return py::array(mine.dtype(), shape, bytes.data(), bytes);
}

std::size_t sum(const std::vector<std::size_t>& rows) {
  std::size_t total = 0;
  for (const auto count : rows) total += count;
  return total;
}

/// A contribution of any number of rows. A number, or an array of no dimensions, is one.
Call contribution(const char* kind, py::handle name, DType dtype, const py::array& mine) {
  Call call = call_of(kind, name, dtype, mine);
  if (mine.ndim() == 0) call.shape = {1};
  call.any_first_dimension = true;
  return call;
}

std::size_t rows_of(const py::array& array) {
  return array.ndim() == 0 ? 1 : static_cast<std::size_t>(array.shape(0));
}

py::array allgather(Communicator& self, const py::array& mine, const std::optional<DType>& given,
                    py::handle name) {
  const Call call = contribution("allgather", name, dtype_from(mine, given), mine);
  const auto input = input_of(mine);
  const std::size_t rows = rows_of(mine), length = row_bytes(mine);
  auto gathered =
      run_collective(self, {mine}, [&] { return self.allgather(call, input, rows, length); });
  return rows_like(mine, sum(gathered.rows), std::move(gathered.data));
}

py::object gather(Communicator& self, const py::array& mine, const std::optional<DType>& given,
                  int root, int shown_root, py::handle name) {
  Call call = contribution("gather", name, dtype_from(mine, given), mine);
  call.root = shown_root;
  const auto input = input_of(mine);
  auto gathered = run_collective(
      self, {mine}, [&] { return self.gather(call, input, rows_of(mine), row_bytes(mine), root); });
  if (self.rank() != root) return py::none();
  return rows_like(mine, sum(gathered.rows), std::move(gathered.data));
}

/// Without `splits` all ranks get equally many rows.
py::tuple alltoall(Communicator& self, const py::array& input, const std::optional<DType>& given,
                   const std::optional<std::vector<std::size_t>>& splits, py::handle name) {
  if (input.ndim() == 0) throw py::type_error("alltoall needs an array of at least one dimension");
  const auto size = static_cast<std::size_t>(self.size());
  if (!splits && rows_of(input) % size != 0)
    throw py::value_error(std::to_string(rows_of(input)) + " rows do not divide by " +
                          std::to_string(size) + " ranks; pass splits");
  const auto rows = splits ? *splits : std::vector<std::size_t>(size, rows_of(input) / size);
  if (rows.size() != size || sum(rows) != rows_of(input))
    throw ArgumentError("the rows do not fit the array");
  const Call call = contribution("alltoall", name, dtype_from(input, given), input);
  const auto in = input_of(input);
  auto gathered = run_collective(self, {input},
                                 [&] { return self.alltoall(call, in, rows, row_bytes(input)); });
  auto received = rows_like(input, sum(gathered.rows), std::move(gathered.data));
  return py::make_tuple(std::move(received), std::move(gathered.rows));
}

void barrier(Communicator& self, py::handle name) {
  Call call;
  call.kind = "barrier";
  call.name = name_from(name);
  run_collective(self, {}, [&] { self.barrier(call); });
}

}  // namespace

void bind_operations(py::module_& module, py::class_<Communicator>& communicator) {
  module.def(
      "result_like",
      [](const py::array& array) { return new_array(array.dtype(), shape_of(array), array); },
      "array"_a, "An array for the result of a collective, of the same shape and dtype.");
  communicator
      .def("allreduce_array", &allreduce, "input"_a, "output"_a, "dtype"_a, "op"_a, "name"_a,
           "prescale"_a, "postscale"_a)
      .def("reduce_array", &reduce, "input"_a, "dtype"_a, "root"_a, "shown_root"_a, "op"_a,
           "name"_a, "prescale"_a, "postscale"_a)
      .def("reducescatter_array", &reducescatter, "input"_a, "dtype"_a, "op"_a, "name"_a,
           "prescale"_a, "postscale"_a)
      .def("broadcast_array", &broadcast, "data"_a, "dtype"_a, "root"_a, "shown_root"_a, "name"_a)
      .def("allgather_array", &allgather, "mine"_a, "dtype"_a, "name"_a)
      .def("gather_array", &gather, "mine"_a, "dtype"_a, "root"_a, "shown_root"_a, "name"_a)
      .def("alltoall_array", &alltoall, "input"_a, "dtype"_a, "splits"_a, "name"_a)
      .def("barrier_named", &barrier, "name"_a);
}

}  // namespace ronde
