// The collectives as Python's public functions call them: an array in, an array out. What a call is
// (call.h) is made here and not in Python, where it would take longer than a short collective.
//
// An array comes with the dtype of its bytes, or without one if it is plain (arrays.h). Roots come
// as ranks of the set, and as ranks of the job for the eyes of the user.

#include "bindings/operations.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "collective/communicator.h"
#include "core/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

/// How the contributions of the ranks become one.
enum class Op { sum, average, min, max, product };

const char* text_of(Op op) {
  constexpr const char* kTexts[] = {"sum", "average", "min", "max", "product"};
  return kTexts[static_cast<int>(op)];
}

const char* name_of(Op op) {
  constexpr const char* kNames[] = {"Sum", "Average", "Min", "Max", "Product"};
  return kNames[static_cast<int>(op)];
}

ReduceOp core_op(Op op) {
  constexpr ReduceOp kOps[] = {ReduceOp::sum, ReduceOp::sum, ReduceOp::min, ReduceOp::max,
                               ReduceOp::product};
  return kOps[static_cast<int>(op)];
}

std::string shown(py::handle value) { return py::repr(value).cast<std::string>(); }

std::string name_from(py::handle name) {
  if (name.is_none()) return {};
  if (!PyUnicode_Check(name.ptr())) throw py::type_error("name must be a text, not " + shown(name));
  Py_ssize_t length = 0;
  if (const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &length)) return {text, text + length};
  PyErr_Clear();  // half a surrogate pair
  return py::cast<std::string>(name.attr("encode")("utf-8", "replace"));
}

double factor_from(const char* what, py::handle value) {
  const double factor = PyFloat_AsDouble(value.ptr());
  if (factor != -1.0 || !PyErr_Occurred()) return factor;
  const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError);
  PyErr_Clear();
  if (too_large) throw py::value_error(std::string(what) + " is too large for a float");
  throw py::type_error(std::string(what) + " must be a number, not " + shown(value));
}

DType dtype_from(const py::array& array, const std::optional<DType>& dtype) {
  if (dtype) return *dtype;
  if (const auto plain = plain_dtype(array)) return *plain;
  throw py::type_error("a plain array is needed, or its dtype");
}

std::vector<std::int64_t> shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

Call call_of(const char* kind, py::handle name, DType dtype, const py::array& array) {
  Call call;
  call.kind = kind;
  call.name = name_from(name);
  call.dtype = dtype;
  call.shape = shape_of(array);
  return call;
}

/// What the caller says of a reduction, checked.
struct Reducing {
  Reducing(const Communicator& communicator, py::handle op_object, DType dtype, py::handle prescale,
           py::handle postscale) {
    if (!py::isinstance<Op>(op_object))
      throw py::type_error("op must be one of ronde.Sum, Average, Min, Max and Product, not " +
                           shown(op_object));
    op = op_object.cast<Op>();
    reduction.dtype = dtype;
    reduction.op = core_op(op);
    reduction.prescale = factor_from("prescale_factor", prescale);
    reduction.postscale = factor_from("postscale_factor", postscale);
    if (op == Op::average) reduction.divisor = communicator.size();
    if (is_floating(dtype)) return;
    const std::string type(ronde::name_of(dtype));
    if (op == Op::average)
      throw py::type_error("the average of " + type +
                           " would have to be rounded; use op=ronde.Sum, or convert to a "
                           "floating type");
    if (reduction.prescale != 1.0 || reduction.postscale != 1.0)
      throw py::type_error("prescale_factor and postscale_factor need a floating type, not " +
                           type);
  }

  void describe(Call& call) const {
    call.op = text_of(op);
    call.prescale = reduction.prescale;
    call.postscale = reduction.postscale;
  }

  void require_compressible() const {
    if (op != Op::sum && op != Op::average)
      throw py::value_error(
          std::string("compression needs op=ronde.Sum or ronde.Average, not ronde.") + name_of(op));
    if (reduction.dtype != DType::float32)
      throw py::type_error("compression needs float32, not " +
                           std::string(ronde::name_of(reduction.dtype)));
  }

  Op op;
  Reduction reduction;
};

/// What the caller says of a compression: the compressor, a residual for all elements of the call
/// or None, the key of random numbers, and whether each rank's own values are compressed wherever
/// the ranks are.
struct Compressing {
  std::shared_ptr<const Compressor> compressor;
  std::optional<py::array> residual;
  std::uint64_t key;
  bool per_rank;

  void require_fitting(std::size_t elements) const {
    if (residual && (plain_dtype(*residual) != DType::float32 ||
                     static_cast<std::size_t>(residual->size()) != elements))
      throw py::value_error("the residual must be a float32 array of " + std::to_string(elements) +
                            " elements");
  }

  Compression compression() {
    std::span<float> left;
    if (residual)
      left = {reinterpret_cast<float*>(output_of(*residual).data),
              static_cast<std::size_t>(residual->size())};
    return {compressor, left, key, per_rank};
  }
};

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

/// Arrays that get results must not share memory: each would change the other's.
void require_apart(const std::vector<py::array>& outputs) {
  std::vector<ConstBuffer> spans;
  for (const auto& output : outputs) {
    if (output.nbytes()) spans.push_back(input_of(output));
  }
  std::sort(spans.begin(), spans.end(),
            [](const auto& a, const auto& b) { return a.data < b.data; });
  for (std::size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].data < spans[i - 1].data + spans[i - 1].bytes)
      throw py::value_error(
          "two of the arrays share memory, so the result of one would overwrite "
          "the other's");
  }
}

/// What is done with some of the arrays of a group, in words.
using Way = std::pair<std::string, std::vector<std::size_t>>;

/// Phase 0 of a call on several arrays, which allreduce_bucket then reduces. Returns whether any
/// rank has raised its flag.
bool agree_on_group(Communicator& self, const std::string& kind,
                    const std::vector<py::array>& inputs, const std::vector<py::array>& outputs,
                    const std::vector<DType>& dtypes, const std::vector<Way>& ways, py::handle op,
                    py::handle name, py::handle prescale, py::handle postscale, bool flag) {
  require_apart(outputs);
  Call group;
  group.kind = kind;
  group.name = name_from(name);
  group.detail = std::to_string(inputs.size()) + " arrays: ";
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Reducing reducing(self, op, dtypes[i], prescale, postscale);
    reducing.describe(group);
    if (i) group.detail += ", ";
    group.detail += ronde::name_of(dtypes[i]);
    group.detail += shown(py::list(py::cast(shape_of(inputs[i]))));
  }
  if (inputs.empty()) Reducing(self, op, DType::float32, prescale, postscale).describe(group);
  for (const auto& [text, members] : ways) {
    group.detail += ", compression=" + text + " of " + shown(py::cast(members));
    for (const auto i : members)
      Reducing(self, op, dtypes.at(i), prescale, postscale).require_compressible();
  }
  // An empty group is a call too.
  const auto byte = static_cast<std::byte>(flag);
  std::byte any{};
  const Piece piece{{&byte, 1, {}}, {&any, 1, {}}};
  run_collective(self, {}, [&] {
    self.allreduce(group, {&piece, 1}, {.dtype = DType::uint8, .op = ReduceOp::max});
  });
  return any != std::byte{};
}

/// Arrays of one dtype of a group that has been agreed on, as one vector.
void allreduce_bucket(Communicator& self, const std::vector<py::array>& inputs,
                      std::vector<py::array>& outputs, DType dtype, py::handle op, py::handle name,
                      py::handle prescale, py::handle postscale, Compressing* compressing,
                      const std::string& detail) {
  const Reducing reducing(self, op, dtype, prescale, postscale);
  Call call;
  call.kind = "bucket of allreduce";
  call.name = name_from(name);
  call.dtype = dtype;
  call.detail = detail;
  reducing.describe(call);
  std::vector<Piece> pieces;
  std::size_t elements = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    pieces.push_back({input_of(inputs[i]), output_of(outputs.at(i))});
    elements += static_cast<std::size_t>(inputs[i].size());
  }
  const auto in_list = py::cast(inputs), out_list = py::cast(outputs);
  if (!compressing) {
    run_collective(self, {in_list, out_list},
                   [&] { self.allreduce(call, pieces, reducing.reduction); });
    return;
  }
  reducing.require_compressible();
  compressing->require_fitting(elements);
  if (compressing->per_rank) call.detail += ", per rank";
  const auto compression = compressing->compression();
  const py::object residual =
      compressing->residual ? py::object(*compressing->residual) : py::none();
  run_collective(self, {in_list, out_list, residual},
                 [&] { self.allreduce_compressed(call, pieces, reducing.reduction, compression); });
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

void bind_op(py::module_& module) {
  py::enum_<Op> ops(module, "Op", "How the contributions of the ranks become one.");
  for (int i = 0; i <= static_cast<int>(Op::product); ++i)
    ops.value(name_of(static_cast<Op>(i)), static_cast<Op>(i));
  ops.attr("__repr__") = py::cpp_function([](Op op) { return std::string("ronde.") + name_of(op); },
                                          py::is_method(ops));
  ops.attr("__str__") = ops.attr("__repr__");
}

void bind_operations(py::module_& module, py::class_<Communicator>& communicator) {
  py::class_<Compressing>(module, "Compression", "How one allreduce is compressed.")
      .def(py::init([](std::shared_ptr<Compressor> compressor, std::optional<py::array> residual,
                       std::uint64_t key, bool per_rank) {
             return Compressing{std::move(compressor), std::move(residual), key, per_rank};
           }),
           "compressor"_a.none(false), "residual"_a, "key"_a, "per_rank"_a = false);
  module.def(
      "result_like",
      [](const py::array& array) { return new_array(array.dtype(), shape_of(array), array); },
      "array"_a, "An array for the result of a collective, of the same shape and dtype.");
  communicator
      .def("allreduce_array", &allreduce, "input"_a, "output"_a, "dtype"_a, "op"_a, "name"_a,
           "prescale"_a, "postscale"_a)
      .def("agree_on_group", &agree_on_group, "kind"_a, "inputs"_a, "outputs"_a, "dtypes"_a,
           "ways"_a, "op"_a, "name"_a, "prescale"_a, "postscale"_a, "flag"_a)
      .def("allreduce_bucket", &allreduce_bucket, "inputs"_a, "outputs"_a, "dtype"_a, "op"_a,
           "name"_a, "prescale"_a, "postscale"_a, "compression"_a, "detail"_a)
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
