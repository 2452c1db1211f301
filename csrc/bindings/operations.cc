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

#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/caller.h"
#include "bindings/operand.h"
#include "collective/communicator.h"
#include "core/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

/// Where NCCL connects the ranks, they have the array all on GPUs or all on the host.
void describe_place(Call& call, const Operand& operand, ConstBuffer memory,
                    const Communicator& set) {
  if (!operand.on_gpu()) return;
  const Piece whole{memory, {}};
  set.describe_gpus(call, {&whole, 1});
}

Call call_on(const char* kind, py::handle name, const Operand& operand, const Communicator& set) {
  Call call = call_of(kind, name, operand);
  describe_place(call, operand, operand.input(), set);
  return call;
}

/// In place, in another array, or in a new one for None.
Operand result_of(const Operand& input, py::handle output) {
  if (output.is_none()) return input.like();
  if (output.is(input.array)) return input;
  return {py::reinterpret_borrow<py::object>(output), input.dtype};
}

py::object allreduce(const Caller& caller, py::handle x, py::handle output, py::handle op,
                     py::handle name, py::handle prescale, py::handle postscale, py::handle given,
                     const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& input = *operand;
  const Reducing reducing(caller.set, op, input.dtype, prescale, postscale);
  Call call = call_on("allreduce", name, input, caller.set);
  reducing.describe(call);
  const auto result = result_of(input, output);
  const Fusable whole{{input.input(), result.output()}, reducing.reduction};
  if (whole.piece.output.bytes != whole.piece.input.bytes)
    throw ArgumentError("the output is not of the size of the input");
  const auto begin = [whole, algorithm](Route& route, Operation& operation) {
    return route.allreduce(operation, {&whole.piece, 1}, whole.reduction, algorithm);
  };
  const auto finish = [result = result.array] { return result; };
  return caller(call, Collective::allreduce, algorithm, {input.array, result.array}, begin, finish,
                algorithm.empty() ? std::optional(whole) : std::nullopt);
}

py::object reduce(const Caller& caller, py::handle x, int root, py::handle op, py::handle name,
                  py::handle prescale, py::handle postscale, py::handle given,
                  const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& input = *operand;
  const Reducing reducing(caller.set, op, input.dtype, prescale, postscale);
  reducing.require_elementwise("reduce");
  Call call = call_on("reduce", name, input, caller.set);
  call.root = caller.set.members().at(root);
  reducing.describe(call);
  py::object result = py::none();
  Piece piece{input.input(), {}};
  if (caller.set.rank() == root) {
    const auto made = input.like();
    piece.output = made.output();
    result = made.array;
  }
  const auto begin = [piece, reduction = reducing.reduction, root, algorithm](
                         Route& route, Operation& operation) {
    return route.reduce(operation, piece, reduction, root, algorithm);
  };
  const auto finish = [result] { return result; };
  return caller(call, Collective::reduce, algorithm, {input.array, result}, begin, finish);
}

/// The rows that each rank gets of so many: as even as possible, lower ranks first.
std::vector<std::size_t> even_rows(std::size_t rows, int size) {
  std::vector<std::size_t> result;
  for (int rank = 0; rank < size; ++rank)
    result.push_back(rows / size + (static_cast<std::size_t>(rank) < rows % size));
  return result;
}

std::size_t row_elements(const Operand& array) {
  const auto shape = array.shape();
  std::size_t elements = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) elements *= static_cast<std::size_t>(shape[i]);
  return elements;
}

std::size_t row_bytes(const Operand& array) { return row_elements(array) * array.item_bytes(); }

py::object reducescatter(const Caller& caller, py::handle x, py::handle op, py::handle name,
                         py::handle prescale, py::handle postscale, py::handle given,
                         const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& input = *operand;
  auto shape = input.shape();
  if (shape.empty()) throw py::type_error("reducescatter needs an array of at least one dimension");
  const Reducing reducing(caller.set, op, input.dtype, prescale, postscale);
  reducing.require_elementwise("reducescatter");
  Call call = call_on("reducescatter", name, input, caller.set);
  reducing.describe(call);
  auto counts = even_rows(static_cast<std::size_t>(shape[0]), caller.set.size());
  shape[0] = static_cast<std::int64_t>(counts[caller.set.rank()]);
  const auto result = input.like(shape);
  for (auto& count : counts) count *= row_elements(input);
  const auto begin = [in = input.input(), out = result.output(), chunks = Chunks::of(counts),
                      reduction = reducing.reduction,
                      algorithm](Route& route, Operation& operation) {
    return route.reduce_scatter(operation, in, out, chunks, reduction, algorithm);
  };
  const auto finish = [result = result.array] { return result; };
  return caller(call, Collective::reduce_scatter, algorithm, {input.array, result.array}, begin,
                finish);
}

py::object broadcast(const Caller& caller, py::handle x, int root, py::handle name,
                     py::handle given, const std::string& algorithm, py::handle described) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  Call call = call_on("broadcast", name, *operand, caller.set);
  call.root = caller.set.members().at(root);
  if (!described.is_none()) call = described.cast<Call>();
  const auto begin = [data = operand->output(), root, algorithm](Route& route,
                                                                 Operation& operation) {
    return route.broadcast(operation, data, root, algorithm);
  };
  const auto finish = [array = operand->array] { return array; };
  return caller(call, Collective::broadcast, algorithm, {operand->array}, begin, finish);
}

/// What came, as an array of rows like those of `mine`: on the host, or of its kind.
py::object rows_like(const Operand& mine, std::size_t rows, Gathered& gathered) {
  auto shape = mine.shape();
  if (shape.empty()) shape.push_back(0);
  shape[0] = static_cast<std::int64_t>(rows);
  if (gathered.there) return mine.like(shape, *gathered.there);
  const auto bytes = array_of(std::move(gathered.data));
  return mine.over(py::array(mine.numpy_dtype(), shape, bytes.data(), bytes));
}

std::size_t sum(const std::vector<std::size_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::size_t{0});
}

/// All rows, and how many came from each rank.
py::tuple joined(const Operand& mine, Gathered& gathered) {
  auto rows = rows_like(mine, sum(gathered.rows), gathered);
  return py::make_tuple(std::move(rows), std::move(gathered.rows));
}

/// A contribution of any number of rows. A number, or an array of no dimensions, is one.
Call contribution(const char* kind, py::handle name, const Operand& mine, const Communicator& set) {
  Call call = call_of(kind, name, mine);
  if (mine.shape().empty()) call.shape = {1};
  call.any_first_dimension = true;
  describe_place(call, mine, mine.part(), set);
  return call;
}

std::size_t rows_of(const Operand& array) {
  const auto shape = array.shape();
  return shape.empty() ? 1 : static_cast<std::size_t>(shape[0]);
}

/// The task, whose result goes where the caller finds it.
template <class T>
Task<> keep_result(std::shared_ptr<T> result, Task<T> task) {
  T made = co_await std::move(task);
  *result = std::move(made);
}

py::object allgather(const Caller& caller, py::handle x, py::handle name, py::handle given,
                     const std::string& algorithm, py::handle described) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& mine = *operand;
  Call call = described.is_none() ? contribution("allgather", name, mine, caller.set)
                                  : described.cast<Call>();
  const Contribution rows{mine.part(), rows_of(mine), row_bytes(mine)};
  const auto all = std::make_shared<Gathered>();
  const auto begin = [all, rows, algorithm](Route& route, Operation& operation) {
    return keep_result(all, route.allgather(operation, rows, algorithm));
  };
  const auto finish = [all, mine] { return joined(mine, *all); };
  return caller(call, Collective::allgather, algorithm, {mine.array}, begin, finish);
}

py::object gather(const Caller& caller, py::handle x, int root, py::handle name, py::handle given,
                  const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& mine = *operand;
  Call call = contribution("gather", name, mine, caller.set);
  call.root = caller.set.members().at(root);
  const Contribution rows{mine.part(), rows_of(mine), row_bytes(mine)};
  const auto all = std::make_shared<Gathered>();
  const auto begin = [all, rows, root, algorithm](Route& route, Operation& operation) {
    return keep_result(all, route.gather(operation, rows, root, algorithm));
  };
  const auto finish = [all, mine, is_root = caller.set.rank() == root]() -> py::object {
    if (!is_root) return py::none();
    return joined(mine, *all);
  };
  return caller(call, Collective::gather, algorithm, {mine.array}, begin, finish);
}

/// The rows of each rank add up to what the array has.
void require_rows(const Communicator& set, const std::vector<std::size_t>& rows, std::size_t bytes,
                  std::size_t row_bytes) {
  if (static_cast<int>(rows.size()) != set.size() || sum(rows) * row_bytes != bytes)
    throw ArgumentError("the rows do not fit the array");
}

/// The root alone passes an array, the rows of each rank and their length, and a few words for all.
py::object scatter(const Caller& caller, const py::object& x, const std::vector<std::size_t>& rows,
                   std::size_t row_bytes, const std::vector<std::int64_t>& header, int root,
                   py::handle name, const std::string& algorithm) {
  Call call;
  call.kind = "scatter";
  call.name = name_from(name);
  call.root = caller.set.members().at(root);
  const auto input = x.is_none() ? ConstBuffer{} : Operand(x, DType::uint8).input();
  if (caller.set.rank() == root) {
    require_rows(caller.set, rows, input.bytes, row_bytes);
    if (header.size() > kHeaderWords) throw ArgumentError("the array has too many dimensions");
  }
  const auto part = std::make_shared<Scattered>();
  const auto begin = [part, input, rows, row_bytes, header, root, algorithm](Route& route,
                                                                             Operation& operation) {
    const Rows parts{input, rows, row_bytes};
    return keep_result(part, route.scatter(operation, parts, header, root, algorithm));
  };
  const auto finish = [part] {
    return py::make_tuple(part->rows, array_of(std::move(part->data)), part->header);
  };
  return caller(call, Collective::scatter, algorithm, {x}, begin, finish);
}

/// Without `splits` all ranks get equally many rows.
py::object alltoall(const Caller& caller, py::handle x,
                    const std::optional<std::vector<std::size_t>>& splits, py::handle name,
                    py::handle given, const std::string& algorithm) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& input = *operand;
  if (input.shape().empty())
    throw py::type_error("alltoall needs an array of at least one dimension");
  const auto size = static_cast<std::size_t>(caller.set.size());
  if (!splits && rows_of(input) % size != 0)
    throw py::value_error(std::to_string(rows_of(input)) + " rows do not divide by " +
                          std::to_string(size) + " ranks; pass splits");
  const auto rows = splits ? *splits : std::vector<std::size_t>(size, rows_of(input) / size);
  const auto in = input.part();
  const std::size_t length = row_bytes(input);
  require_rows(caller.set, rows, in.bytes, length);
  Call call = contribution("alltoall", name, input, caller.set);
  const auto all = std::make_shared<Gathered>();
  const auto begin = [all, in, rows, length, algorithm](Route& route, Operation& operation) {
    const Rows parts{in, rows, length};
    return keep_result(all, route.alltoall(operation, parts, algorithm));
  };
  const auto finish = [all, input] { return joined(input, *all); };
  return caller(call, Collective::alltoall, algorithm, {input.array}, begin, finish);
}

py::object barrier(const Caller& caller, py::handle name, py::handle described) {
  Call call;
  call.kind = "barrier";
  call.name = name_from(name);
  if (!described.is_none()) call = described.cast<Call>();
  const auto begin = [](Route& route, Operation& operation) { return route.barrier(operation); };
  const auto finish = [] { return py::none(); };
  return caller(call, Collective::broadcast, {}, {}, begin, finish);
}

/// Whether a call takes it as it is.
bool is_plain(py::handle x, bool writable) {
  const auto array = operand_of(x, py::none());
  return array && (array->writable() || !writable);
}

void bind_call(py::module_& module) {
  module.def("is_plain", &is_plain, "x"_a, "writable"_a = false);
  py::class_<Call>(module, "Call", "What the ranks must have in common, and how to speak of it.")
      .def(py::init([](std::string kind, std::string name, std::optional<DType> dtype,
                       std::optional<std::vector<std::int64_t>> shape, std::string op, int root,
                       double prescale, double postscale, std::string detail, bool needs_all) {
             return Call{std::move(kind), std::move(name),   dtype,    std::move(shape),
                         false,           std::move(op),     root,     prescale,
                         postscale,       std::move(detail), needs_all};
           }),
           "kind"_a, "name"_a = "", "dtype"_a = py::none(), "shape"_a = py::none(), "op"_a = "",
           "root"_a = -1, "prescale"_a = 1.0, "postscale"_a = 1.0, "detail"_a = "",
           "needs_all"_a = false)
      .def("__str__", &Call::text);
}

/// `set`: what names the argument that a method takes first, if it takes one.
template <class Class, class... Set>
void bind_collectives(Class& calls, const Set&... set) {
  const typename Class::type* const of = nullptr;
  const auto no_name = "name"_a = py::none();
  const auto plain = "dtype"_a = py::none();
  const auto chosen = "algorithm"_a = "";
  const auto as_it_is = "call"_a = py::none();
  const auto before = "prescale"_a = 1.0, after = "postscale"_a = 1.0;
  calls
      .def("allreduce", method(of, &allreduce), set..., "x"_a, "output"_a, "op"_a, no_name, before,
           after, plain, chosen)
      .def("reduce", method(of, &reduce), set..., "x"_a, "root"_a, "op"_a, no_name, before, after,
           plain, chosen)
      .def("reducescatter", method(of, &reducescatter), set..., "x"_a, "op"_a, no_name, before,
           after, plain, chosen)
      .def("broadcast", method(of, &broadcast), set..., "x"_a, "root"_a, no_name, plain, chosen,
           as_it_is)
      .def("allgather", method(of, &allgather), set..., "x"_a, no_name, plain, chosen, as_it_is)
      .def("gather", method(of, &gather), set..., "x"_a, "root"_a, no_name, plain, chosen)
      .def("scatter", method(of, &scatter), set..., "x"_a, "rows"_a, "row_bytes"_a, "header"_a,
           "root"_a, no_name, chosen)
      .def("alltoall", method(of, &alltoall), set..., "x"_a, "splits"_a, no_name, plain, chosen)
      .def("barrier", method(of, &barrier), set..., no_name, as_it_is);
}

}  // namespace

void bind_operations(py::module_& module, py::class_<Communicator>& communicator) {
  bind_op(module);
  bind_call(module);
  bind_collectives(communicator);
}

void bind_operations(py::class_<Engine, std::shared_ptr<Engine>>& engine) {
  bind_collectives(engine, "set"_a);
}

}  // namespace ronde
