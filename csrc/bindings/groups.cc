// Allreduces of several arrays as Python's public functions call them (methods/group.h).
//
// Arrays come in a list. If they are plain (arrays.h) and what the plan says, that is all; else the
// result is None, nothing was done, and it is for the caller to see what they are.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/caller.h"
#include "bindings/operand.h"
#include "bindings/operations.h"
#include "collective/communicator.h"
#include "methods/group.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

/// What the caller says of a compression: the compressor, a residual for all elements of the call
/// or None, the key of random numbers, and whether each rank's own values are compressed wherever
/// the ranks are.
struct Given {
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
void require_apart(std::vector<ConstBuffer> spans) {
  std::erase_if(spans, [](const auto& span) { return span.bytes == 0; });
  std::sort(spans.begin(), spans.end(),
            [](const auto& a, const auto& b) { return a.data < b.data; });
  for (std::size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].data < spans[i - 1].data + spans[i - 1].bytes)
      throw py::value_error(
          "two of the arrays share memory, so the result of one would overwrite "
          "the other's");
  }
}

/// Of some arrays: how they are compressed, in words, by what, and which they are.
using Way = std::tuple<std::string, std::shared_ptr<Method>, std::vector<std::size_t>>;

/// `labels`: names of the arrays, under which methods keep what belongs to them.
std::shared_ptr<Plan> make_plan(const Communicator& set, const std::string& kind, py::handle name,
                                py::handle op, py::handle prescale, py::handle postscale,
                                const std::vector<std::vector<std::int64_t>>& shapes,
                                const std::vector<DType>& dtypes, const py::list& labels,
                                const std::vector<Way>& ways, std::size_t fusion_bytes) {
  auto plan = std::make_shared<Plan>();
  auto& call = plan->call;
  call.kind = kind;
  call.name = name_from(name);
  call.detail = std::to_string(shapes.size()) + " arrays: ";
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Reducing reducing(set, op, dtypes.at(i), prescale, postscale);
    reducing.describe(call);
    if (i) call.detail += ", ";
    call.detail += ronde::name_of(dtypes[i]);
    call.detail += shown(py::list(py::cast(shapes[i])));
    std::size_t elements = 1;
    for (const auto length : shapes[i]) elements *= static_cast<std::size_t>(length);
    plan->parameters.push_back({name_from(labels[i]), shapes[i], dtypes[i], elements});
    plan->reductions.push_back(reducing.reduction);
  }
  const Reducing in_floats(set, op, DType::float32, prescale, postscale);
  if (shapes.empty()) in_floats.describe(call);
  plan->in_floats = in_floats.reduction;
  plan->averages = in_floats.op == Op::average;
  const auto growth = [](double factor) { return std::max(1.0, std::abs(factor)); };
  plan->growth =
      2.0 * set.size() * growth(plan->in_floats.prescale) * growth(plan->in_floats.postscale);
  for (const auto& [text, method, members] : ways) {
    if (method) call.detail += ", compression=" + text + " of " + shown(py::cast(members));
    for (const auto i : members) {
      if (method) Reducing(set, op, dtypes.at(i), prescale, postscale).require_compressible();
    }
    plan->add(method, members, fusion_bytes);
  }
  call.known_fingerprint = call.fingerprint();
  return plan;
}

/// The array, if it is what the plan says. `given`: what it is, unless it is plain.
std::optional<Operand> planned(py::handle x, const Parameter& parameter,
                               std::optional<DType> given) {
  auto array = operand_of(x, given);
  if (!array || array->dtype != parameter.dtype || array->shape() != parameter.shape) return {};
  return array;
}

/// Begins the call for the methods.
Method::Held entered(GroupedCall& group) {
  Method::Held all;
  for (std::size_t i = 0; i < group.methods.size(); ++i) {
    if (!group.methods[i]) continue;
    const auto& buckets = group.plan->ways[i].buckets;
    for (auto& each : group.methods[i]->enter(group.set, buckets)) all.push_back(std::move(each));
    group.feeds_back |= group.methods[i]->feeds_back(group.set, buckets);
  }
  return all;
}

/// What the ranks compare besides the plan: where arrays are, and methods in what they keep.
Call positioned(const GroupedCall& group) {
  Call call = group.plan->call;
  group.set.describe_gpus(call, group.arrays);
  for (std::size_t i = 0; i < group.methods.size(); ++i) {
    if (group.methods[i])
      call.detail += group.methods[i]->position(group.set, group.plan->ways[i].buckets);
  }
  if (call.detail != group.plan->call.detail) call.known_fingerprint.reset();
  return call;
}

/// `outputs`: None for new arrays. `dtypes`: of arrays that are not plain, or None. Returns the
/// outputs, and whether they were reduced exactly whatever the plan says.
py::object grouped_allreduce(const Caller& caller, const std::shared_ptr<Plan>& plan,
                             const py::list& xs, const py::object& outputs,
                             const std::optional<std::vector<DType>>& dtypes) {
  if (xs.size() != plan->parameters.size()) return py::none();
  const auto group =
      std::make_shared<GroupedCall>(GroupedCall{plan, caller.set, {}, {}, false, false, {}});
  for (const auto& way : plan->ways) {
    group->methods.push_back(way.method.lock());
    if (!way.exact && !group->methods.back()) return py::none();
  }
  py::list results;
  std::vector<ConstBuffer> apart;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const auto given = dtypes ? std::optional(dtypes->at(i)) : std::nullopt;
    const auto input = planned(xs[i], plan->parameters[i], given);
    if (!input) return py::none();
    const auto output = outputs.is_none()
                            ? input->like()
                            : Operand(py::list(outputs)[i], plan->parameters[i].dtype);
    if (!output.writable() || output.bytes() != input->bytes()) return py::none();
    group->arrays.push_back({input->input(), output.output()});
    if (!outputs.is_none()) apart.push_back(output.input());
    results.append(output.array);
  }
  require_apart(std::move(apart));
  const auto outlines = [plan] { return plan->outlines(); };
  const auto finish = [group, results]() -> py::object {
    if (group->error) std::rethrow_exception(group->error);
    return py::make_tuple(results, group->exactly);
  };
  py::object result;
  {
    // Held until the call has ended, whoever keeps its handle, and no longer.
    const auto begin = [group, held = entered(*group)](Routes& routes, Operation& operation) {
      return reduce_group(group, routes, operation);
    };
    result = caller(positioned(*group), {xs, results}, begin, outlines, finish);
  }
  give_back_objects();
  return result;
}

template <class Class, class... Set>
void bind_grouped(Class& calls, const Set&... set) {
  const typename Class::type* const of = nullptr;
  calls.def("grouped_allreduce", method(of, &grouped_allreduce), set..., "plan"_a, "xs"_a,
            "outputs"_a, "dtypes"_a = py::none());
}

/// Arrays of one dtype as one vector, for tests and benchmarks.
void allreduce_bucket(Communicator& self, const std::vector<py::array>& inputs,
                      std::vector<py::array>& outputs, DType dtype, py::handle op, py::handle name,
                      py::handle prescale, py::handle postscale, Given* compressing,
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
  py::class_<Plan, std::shared_ptr<Plan>>(module, "Plan",
                                          "What is known of a group of arrays from call to call.")
      .def(py::init(&make_plan), "set"_a, "kind"_a, "name"_a, "op"_a, "prescale"_a, "postscale"_a,
           "shapes"_a, "dtypes"_a, "labels"_a, "ways"_a, "fusion_bytes"_a)
      .def("__str__", [](const Plan& self) { return to_python(self.call.text()); });
  bind_grouped(communicator);
  py::class_<Given>(module, "Compression", "How one allreduce is compressed.")
      .def(py::init([](std::shared_ptr<Compressor> compressor, std::optional<py::array> residual,
                       std::uint64_t key, bool per_rank) {
             return Given{std::move(compressor), std::move(residual), key, per_rank};
           }),
           "compressor"_a.none(false), "residual"_a, "key"_a, "per_rank"_a = false);
  communicator.def("allreduce_bucket", &allreduce_bucket, "inputs"_a, "outputs"_a, "dtype"_a,
                   "op"_a, "name"_a, "prescale"_a, "postscale"_a, "compression"_a, "detail"_a);
}

void bind_groups(py::class_<Engine, std::shared_ptr<Engine>>& engine) {
  bind_grouped(engine, "set"_a);
}

}  // namespace ronde
