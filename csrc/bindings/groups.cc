// Allreduces of several arrays as Python's public functions call them: the ranks agree on the
// group, and then reduce its buckets, each of them as one vector, exactly or compressed.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/operations.h"
#include "collective/communicator.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

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
  auto byte = static_cast<std::byte>(flag);
  std::byte any{};
  const Piece piece{{&byte, 1, {}}, {&any, 1, {}}};
  run_collective(self, {}, [&] {
    self.run(group, Collective::allreduce, {}, [&](Route& route, Operation& operation) {
      // Ranks that have joined take part in what is exact.
      if (operation.joined.ranks > 0) byte = std::byte{1};
      return route.allreduce(operation, {&piece, 1}, {.dtype = DType::uint8, .op = ReduceOp::max},
                             {});
    });
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
    run_collective(self, {in_list, out_list}, [&] {
      self.run(call, Collective::allreduce, {}, [&](Route& route, Operation& operation) {
        return route.allreduce(operation, pieces, reducing.reduction, {});
      });
    });
    return;
  }
  reducing.require_compressible();
  if (dtype != DType::float32)
    throw py::type_error("compression needs float32: other types are converted before");
  compressing->require_fitting(elements);
  if (compressing->per_rank) call.detail += ", per rank";
  const auto compression = compressing->compression();
  const py::object residual =
      compressing->residual ? py::object(*compressing->residual) : py::none();
  run_collective(self, {in_list, out_list, residual},
                 [&] { self.allreduce_compressed(call, pieces, reducing.reduction, compression); });
}

}  // namespace

void bind_groups(py::module_& module, py::class_<Communicator>& communicator) {
  py::class_<Compressing>(module, "Compression", "How one allreduce is compressed.")
      .def(py::init([](std::shared_ptr<Compressor> compressor, std::optional<py::array> residual,
                       std::uint64_t key, bool per_rank) {
             return Compressing{std::move(compressor), std::move(residual), key, per_rank};
           }),
           "compressor"_a.none(false), "residual"_a, "key"_a, "per_rank"_a = false);
  communicator
      .def("agree_on_group", &agree_on_group, "kind"_a, "inputs"_a, "outputs"_a, "dtypes"_a,
           "ways"_a, "op"_a, "name"_a, "prescale"_a, "postscale"_a, "flag"_a)
      .def("allreduce_bucket", &allreduce_bucket, "inputs"_a, "outputs"_a, "dtype"_a, "op"_a,
           "name"_a, "prescale"_a, "postscale"_a, "compression"_a, "detail"_a);
}

}  // namespace ronde
