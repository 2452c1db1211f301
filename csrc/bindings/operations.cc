// The collectives as Python's public functions call them: an array in, an array out. What a call is
// (call.h) is made here and not in Python, where it would take longer than a short collective.
// Groups of arrays are in groups.cc.
//
// An array comes with the dtype of its bytes, or without one if it is plain (arrays.h). Without one
// and not plain it is for the caller to see what it is: the result is None, and nothing was done.
// Roots come as ranks of the set, and are shown as ranks of the job.
//
// Two arguments have defaults. `algorithm` names one for schedules, for tests. `call` is another
// description than that of the collective itself, where it is a part of something larger: of a
// broadcast of an object, say.

#include "bindings/operations.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/operand.h"
#include "collective/communicator.h"
#include "core/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

py::object allreduce(Communicator& self, py::handle x, py::handle output, py::handle op,
                     py::handle name, py::handle prescale, py::handle postscale, py::handle given,
                     const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& [input, dtype] = *operand;
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call = call_of("allreduce", name, *operand);
  reducing.describe(call);
  auto result = output.is_none() ? new_like(input) : py::cast<py::array>(output);
  const Piece piece{input_of(input), output_of(result)};
  if (piece.output.bytes != piece.input.bytes)
    throw ArgumentError("the output is not of the size of the input");
  run_collective(self, {input, result},
                 [&] { self.allreduce(call, {&piece, 1}, reducing.reduction, algorithm); });
  return result;
}

py::object reduce(Communicator& self, py::handle x, int root, py::handle op, py::handle name,
                  py::handle prescale, py::handle postscale, py::handle given,
                  const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& [input, dtype] = *operand;
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call = call_of("reduce", name, *operand);
  call.root = self.members().at(root);
  reducing.describe(call);
  py::object result = py::none();
  Buffer out;
  if (self.rank() == root) {
    auto array = new_like(input);
    out = output_of(array);
    result = std::move(array);
  }
  const Piece piece{input_of(input), out};
  run_collective(self, {input, result},
                 [&] { self.reduce(call, piece, reducing.reduction, root, algorithm); });
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

py::object reducescatter(Communicator& self, py::handle x, py::handle op, py::handle name,
                         py::handle prescale, py::handle postscale, py::handle given,
                         const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& [input, dtype] = *operand;
  if (input.ndim() == 0)
    throw py::type_error("reducescatter needs an array of at least one dimension");
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call = call_of("reducescatter", name, *operand);
  reducing.describe(call);
  auto counts = even_rows(static_cast<std::size_t>(input.shape(0)), self.size());
  auto shape = shape_of(input);
  shape[0] = static_cast<std::int64_t>(counts[self.rank()]);
  py::array result = new_array(input.dtype(), shape, input);
  for (auto& count : counts) count *= row_elements(input);
  const auto in = input_of(input);
  const auto out = output_of(result);
  run_collective(self, {input, result}, [&] {
    self.reduce_scatter(call, in, out, Chunks::of(counts), reducing.reduction, algorithm);
  });
  return result;
}

py::object broadcast(Communicator& self, py::handle x, int root, py::handle name, py::handle given,
                     const std::string& algorithm, py::handle described) {
  auto operand = operand_of(x, given);
  if (!operand) return py::none();
  Call call = call_of("broadcast", name, *operand);
  call.root = self.members().at(root);
  if (!described.is_none()) call = described.cast<Call>();
  const auto buffer = output_of(operand->array);
  run_collective(self, {operand->array}, [&] { self.broadcast(call, buffer, root, algorithm); });
  return operand->array;
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
  return std::accumulate(rows.begin(), rows.end(), std::size_t{0});
}

/// All rows, and how many came from each rank.
py::tuple joined(const py::array& mine, Gathered gathered) {
  auto rows = rows_like(mine, sum(gathered.rows), std::move(gathered.data));
  return py::make_tuple(std::move(rows), std::move(gathered.rows));
}

/// A contribution of any number of rows. A number, or an array of no dimensions, is one.
Call contribution(const char* kind, py::handle name, const Operand& mine) {
  Call call = call_of(kind, name, mine);
  if (mine.array.ndim() == 0) call.shape = {1};
  call.any_first_dimension = true;
  return call;
}

std::size_t rows_of(const py::array& array) {
  return array.ndim() == 0 ? 1 : static_cast<std::size_t>(array.shape(0));
}

py::object allgather(Communicator& self, py::handle x, py::handle name, py::handle given,
                     const std::string& algorithm, py::handle described) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& mine = operand->array;
  Call call =
      described.is_none() ? contribution("allgather", name, *operand) : described.cast<Call>();
  const Contribution rows{input_of(mine), rows_of(mine), row_bytes(mine)};
  return joined(
      mine, run_collective(self, {mine}, [&] { return self.allgather(call, rows, algorithm); }));
}

py::object gather(Communicator& self, py::handle x, int root, py::handle name, py::handle given,
                  const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& mine = operand->array;
  Call call = contribution("gather", name, *operand);
  call.root = self.members().at(root);
  const Contribution rows{input_of(mine), rows_of(mine), row_bytes(mine)};
  auto gathered =
      run_collective(self, {mine}, [&] { return self.gather(call, rows, root, algorithm); });
  if (self.rank() != root) return py::none();
  return joined(mine, std::move(gathered));
}

/// The rows of each rank add up to what the array has.
void require_rows(const Communicator& self, const std::vector<std::size_t>& rows, std::size_t bytes,
                  std::size_t row_bytes) {
  if (static_cast<int>(rows.size()) != self.size() || sum(rows) * row_bytes != bytes)
    throw ArgumentError("the rows do not fit the array");
}

/// The root alone passes an array, the rows of each rank and their length, and a few words for all.
py::tuple scatter(Communicator& self, const std::optional<py::array>& all,
                  const std::vector<std::size_t>& rows, std::size_t row_bytes,
                  const std::vector<std::int64_t>& header, int root, py::handle name,
                  const std::string& algorithm) {
  Call call;
  call.kind = "scatter";
  call.name = name_from(name);
  call.root = self.members().at(root);
  const auto input = all ? input_of(*all) : ConstBuffer{};
  if (self.rank() == root) {
    require_rows(self, rows, input.bytes, row_bytes);
    if (header.size() > kHeaderWords) throw ArgumentError("the array has too many dimensions");
  }
  auto result = run_collective(self, {all ? py::handle(*all) : py::none()}, [&] {
    return self.scatter(call, {input, rows, row_bytes}, header, root, algorithm);
  });
  return py::make_tuple(result.rows, array_of(std::move(result.data)), result.header);
}

/// Without `splits` all ranks get equally many rows.
py::object alltoall(Communicator& self, py::handle x,
                    const std::optional<std::vector<std::size_t>>& splits, py::handle name,
                    py::handle given, const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& input = operand->array;
  if (input.ndim() == 0) throw py::type_error("alltoall needs an array of at least one dimension");
  const auto size = static_cast<std::size_t>(self.size());
  if (!splits && rows_of(input) % size != 0)
    throw py::value_error(std::to_string(rows_of(input)) + " rows do not divide by " +
                          std::to_string(size) + " ranks; pass splits");
  const auto rows = splits ? *splits : std::vector<std::size_t>(size, rows_of(input) / size);
  const auto in = input_of(input);
  const std::size_t length = row_bytes(input);
  require_rows(self, rows, in.bytes, length);
  Call call = contribution("alltoall", name, *operand);
  return joined(input, run_collective(self, {input}, [&] {
                  return self.alltoall(call, {in, rows, length}, algorithm);
                }));
}

void barrier(Communicator& self, py::handle name, py::handle described) {
  Call call;
  call.kind = "barrier";
  call.name = name_from(name);
  if (!described.is_none()) call = described.cast<Call>();
  run_collective(self, {}, [&] { self.barrier(call); });
}

void bind_call(py::module_& module) {
  py::class_<Call>(module, "Call", "What the ranks must have in common, and how to speak of it.")
      .def(py::init([](std::string kind, std::string name, std::optional<DType> dtype,
                       std::optional<std::vector<std::int64_t>> shape, std::string op, int root,
                       double prescale, double postscale, std::string detail) {
             return Call{std::move(kind), std::move(name),  dtype, std::move(shape),
                         false,           std::move(op),    root,  prescale,
                         postscale,       std::move(detail)};
           }),
           "kind"_a, "name"_a = "", "dtype"_a = py::none(), "shape"_a = py::none(), "op"_a = "",
           "root"_a = -1, "prescale"_a = 1.0, "postscale"_a = 1.0, "detail"_a = "")
      .def("__str__", &Call::text);
}

}  // namespace

void bind_operations(py::module_& module, py::class_<Communicator>& communicator) {
  module.def("result_like", &new_like, "array"_a,
             "An array for the result of a collective, of the same shape and dtype.");
  bind_op(module);
  bind_call(module);
  const auto no_name = "name"_a = py::none();
  const auto plain = "dtype"_a = py::none();
  const auto chosen = "algorithm"_a = "";
  const auto as_it_is = "call"_a = py::none();
  const auto before = "prescale"_a = 1.0, after = "postscale"_a = 1.0;
  communicator
      .def("allreduce", &allreduce, "x"_a, "output"_a, "op"_a, no_name, before, after, plain,
           chosen)
      .def("reduce", &reduce, "x"_a, "root"_a, "op"_a, no_name, before, after, plain, chosen)
      .def("reducescatter", &reducescatter, "x"_a, "op"_a, no_name, before, after, plain, chosen)
      .def("broadcast", &broadcast, "x"_a, "root"_a, no_name, plain, chosen, as_it_is)
      .def("allgather", &allgather, "x"_a, no_name, plain, chosen, as_it_is)
      .def("gather", &gather, "x"_a, "root"_a, no_name, plain, chosen)
      .def("scatter", &scatter, "x"_a, "rows"_a, "row_bytes"_a, "header"_a, "root"_a, no_name,
           chosen)
      .def("alltoall", &alltoall, "x"_a, "splits"_a, no_name, plain, chosen)
      .def("barrier", &barrier, no_name, as_it_is);
}

}  // namespace ronde
