// Methods of the core, and what they keep.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "methods/compressing.h"
#include "methods/dgc.h"
#include "methods/draws.h"
#include "methods/error_feedback.h"
#include "methods/integer_sums.h"
#include "methods/power_sgd.h"
#include "methods/residuals.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using PlacementTuple = std::tuple<int, int, int, int>;
using UseTuple = std::tuple<PlacementTuple, bool, Parts>;

py::array_t<float> array_of(std::span<const float> values) {
  return py::array_t<float>(static_cast<py::ssize_t>(values.size()), values.data());
}

std::vector<float> floats_of(const Floats& array) {
  return {array.data(), array.data() + array.size()};
}

Placement placement_of(const PlacementTuple& where) {
  const auto [rank, size, local_rank, local_size] = where;
  return {rank, size, local_rank, local_size};
}
PlacementTuple tuple_of(const Placement& where) {
  return {where.rank, where.size, where.local_rank, where.local_size};
}

/// As state_dict() has it, but for the names of tuples.
py::dict state_of(const Residuals& self) {
  const auto state = without_gil([&] { return self.state(); });
  py::dict residuals, unplaced, used, averaged;
  for (const auto& each : state.residuals) {
    const auto name = to_python(each.name);
    if (each.vector) residuals[name] = array_of(each.kept());
    if (each.unplaced) unplaced[name] = array_of(*each.unplaced);
    if (each.averaged) averaged[name] = *each.averaged;
    if (each.use)
      used[name] = py::make_tuple(tuple_of(each.use->where), each.use->whole, each.use->parts);
  }
  py::dict dict;
  dict["where"] = state.where ? py::cast(tuple_of(*state.where)) : py::none();
  dict["residuals"] = residuals;
  dict["unplaced"] = unplaced;
  dict["used"] = used;
  dict["averaged"] = averaged;
  return dict;
}

void load(Residuals& self, const py::dict& dict) {
  Residuals::State state;
  if (const auto where = dict["where"].cast<std::optional<PlacementTuple>>())
    state.where = placement_of(*where);
  std::map<std::string, std::size_t> numbers;
  const auto entry = [&](const std::string& name, std::size_t elements) -> Residuals::Residual& {
    const auto [number, is_new] = numbers.emplace(name, state.residuals.size());
    if (is_new) {
      state.residuals.emplace_back();
      state.residuals.back().name = name;
      state.residuals.back().elements = elements;
    }
    return state.residuals[number->second];
  };
  for (const auto& [name, array] : dict["residuals"].cast<py::dict>()) {
    auto values = floats_of(array.cast<Floats>());
    auto& residual = entry(name_from(name), values.size());
    residual.vector = std::make_shared<Vector>(std::move(values));
  }
  for (const auto& [name, array] : dict["unplaced"].cast<py::dict>()) {
    auto values = floats_of(array.cast<Floats>());
    auto& residual = entry(name_from(name), values.size());
    if (residual.elements != values.size())
      throw ArgumentError("state has two residuals of " + residual.name + " of different sizes");
    residual.unplaced = std::move(values);
  }
  for (const auto& [name, array] : dict["averaged"].cast<py::dict>()) {
    if (const auto known = numbers.find(name_from(name)); known != numbers.end())
      state.residuals[known->second].averaged = array.cast<bool>();
  }
  for (const auto& [name, used] : dict["used"].cast<py::dict>()) {
    const auto known = numbers.find(name_from(name));
    if (known == numbers.end()) continue;
    const auto [where, whole, parts] = used.cast<UseTuple>();
    state.residuals[known->second].use =
        std::make_shared<const Use>(Use{placement_of(where), whole, parts});
  }
  without_gil([&] { self.load(std::move(state)); });
}

void bind_residuals(py::module_& module) {
  py::class_<Residuals, std::shared_ptr<Residuals>>(module, "Residuals",
                                                    "What payloads have left out, by parameters.")
      .def(py::init([] { return freed_without_gil(std::make_unique<Residuals>()); }))
      .def_property_readonly("names",
                             [](const Residuals& self) {
                               py::list names;
                               for (const auto& name : self.names()) names.append(to_python(name));
                               return names;
                             })
      .def(
          "read",
          [](const Residuals& self, py::handle name) -> py::object {
            const auto text = name_from(name);
            const auto found = without_gil([&] { return self.read(text); });
            return found ? py::object(array_of(*found)) : py::none();
          },
          "name"_a)
      .def("rescale", &Residuals::rescale, "factor"_a, py::call_guard<WithoutGil>())
      .def("state", &state_of)
      .def("load", &load, "state"_a);
}

/// Steps by name, as a dictionary.
template <class T>
void bind_steps(py::class_<T, Method, std::shared_ptr<T>>& method) {
  method.def_property(
      "steps",
      [](const T& self) {
        py::dict steps;
        for (const auto& [name, step] : self.steps()) steps[to_python(name)] = step;
        return steps;
      },
      [](T& self, const py::dict& dict) {
        Steps steps;
        for (const auto& [name, step] : dict) steps[name_from(name)] = py::cast<std::int64_t>(step);
        self.load(std::move(steps));
      });
}

// PowerSGD ----------------------------------------------------------------------------------------

std::span<float> written(py::array& array, const char* what) {
  if (plain_dtype(array) != DType::float32)
    throw ArgumentError(std::string(what) + " must be a contiguous array of float32");
  const auto out = output_of(array);
  return {reinterpret_cast<float*>(out.data), out.bytes / sizeof(float)};
}

/// A matrix of a call, as an array has it.
Term term_of(const PowerSgd& self, const py::array& matrix, py::array& residual, std::string name,
             py::array& output) {
  for (const auto& array : {matrix, py::array(output)}) {
    if (array.ndim() < 2 || !(array.flags() & py::array::c_style))
      throw ArgumentError("a contiguous array of two or more dimensions is needed");
  }
  if (plain_dtype(matrix) != DType::float32)
    throw ArgumentError("the matrix must be a contiguous array of float32");
  const auto left = written(residual, "the residual"), out = written(output, "out");
  const auto count = static_cast<std::size_t>(matrix.size());
  if (left.size() != count || out.size() != count)
    throw ArgumentError("the residual of " + shown(py::cast(name)) + " has " +
                        std::to_string(left.size()) + " elements, the matrix " +
                        std::to_string(count) + ", the output " + std::to_string(out.size()));
  const auto shape = self.shape_of(shape_of(matrix));
  const std::span<const float> values(static_cast<const float*>(matrix.data()), count);
  return {std::move(name), shape, values, left, out, {}, {}, {}};
}

/// `allreduce` sums the arrays of a list over the ranks, in place; it is called twice.
void reduce(PowerSgd& self, const std::vector<py::array>& matrices,
            std::vector<py::array> residuals, const std::vector<std::string>& names,
            const py::function& allreduce, int ranks, double factor,
            std::vector<py::array> outputs) {
  HostFactoring on;
  std::vector<Term> terms;
  std::vector<Orthogonalised> found(matrices.size());
  std::vector<std::vector<float>> lasts(matrices.size());
  py::list lefts, rights;
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    terms.push_back(term_of(self, matrices[i], residuals.at(i), names.at(i), outputs.at(i)));
    auto& term = terms.back();
    const auto room = [&](py::list& list, std::size_t length) {
      py::array_t<float> array({term.shape.rank, length});
      list.append(array);
      return std::span<float>(array.mutable_data(), term.shape.rank * length);
    };
    term.left = room(lefts, term.shape.rows);
    term.right = room(rights, term.shape.columns);
    lasts[i].resize(term.right.size());
    term.last = lasts[i];
    term.found = &found[i];
  }
  const auto pass = [](auto work) {
    WithoutGil release;
    work();
  };
  pass([&] { self.project(on, terms); });
  allreduce(lefts);
  pass([&] { self.back_project(on, terms); });
  allreduce(rights);
  pass([&] { self.reconstruct(on, terms, found, ranks, factor); });
}

py::tuple factors_of(PowerSgd& self) {
  py::dict factors, steps;
  for (const auto& [name, known] : without_gil([&] { return self.state(); })) {
    steps[to_python(name)] = known.step;
    if (known.rank == 0) continue;
    py::array_t<float> right({known.rank, known.columns});
    std::ranges::copy(known.right, right.mutable_data());
    factors[to_python(name)] = right;
  }
  return py::make_tuple(factors, steps);
}

void load_factors(PowerSgd& self, const py::dict& factors, const py::dict& steps) {
  std::map<std::string, PowerSgd::Factors> state;
  for (const auto& [name, step] : steps) state[name_from(name)].step = step.cast<std::int64_t>();
  for (const auto& [name, array] : factors) {
    const auto right = array.cast<Floats>();
    if (right.ndim() != 2) throw ArgumentError("factors are the rows of a matrix");
    auto& known = state[name_from(name)];
    known.rank = static_cast<std::size_t>(right.shape(0));
    known.columns = static_cast<std::size_t>(right.shape(1));
    known.right = floats_of(right);
  }
  without_gil([&] { self.load(std::move(state)); });
}

void bind_power_sgd(py::module_& module) {
  py::class_<PowerSgd, Codec, std::shared_ptr<PowerSgd>>(module, "PowerSgd",
                                                         "Sums of matrices of a low rank.")
      .def(py::init([](std::size_t rank, std::string seed) {
             return freed_without_gil(std::make_unique<PowerSgd>(rank, std::move(seed)));
           }),
           "rank"_a, "seed"_a)
      .def(
          "worth_it",
          [](const PowerSgd& self, const std::vector<std::int64_t>& shape) {
            return self.worth_it(shape);
          },
          "shape"_a)
      .def(
          "first",
          [](const PowerSgd& self, std::size_t rows, std::size_t columns, std::uint64_t step,
             py::handle name) {
            const auto shape = self.shape_of(std::vector<std::int64_t>{
                static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)});
            py::array_t<float> right({shape.rank, columns});
            std::ranges::copy(self.random(shape, step, name_from(name)), right.mutable_data());
            return right;
          },
          "rows"_a, "columns"_a, "step"_a = 0, "name"_a = "",
          "The right vectors that a matrix begins with.")
      .def("reduce", &reduce, "matrices"_a, "residuals"_a, "names"_a, "allreduce"_a, "ranks"_a,
           "factor"_a, "outputs"_a)
      .def("state", &factors_of)
      .def("load", &load_factors, "factors"_a, "steps"_a);
}

}  // namespace

void bind_methods(py::module_& module) {
  module.def(
      "key_of",
      [](const std::string& seed, std::uint64_t step, py::handle name) {
        return key_of(seed, step, name_from(name));
      },
      "seed"_a, "step"_a, "name"_a, "64 bits of which random numbers are made.");
  module.def(
      "sum_of_squares",
      [](const Floats& values) {
        return sum_of_squares({values.data(), static_cast<std::size_t>(values.size())});
      },
      "values"_a);
  py::class_<Method, std::shared_ptr<Method>>(module, "Method",
                                              "A way to reduce arrays in fewer bytes.");
  py::class_<Codec, Method, std::shared_ptr<Codec>>(module, "Codec",
                                                    "A method that takes a residual.")
      .def_property_readonly("per_rank", &Codec::per_rank)
      .def_property(
          "steps", [](const Codec& self) { return self.steps.load(); },
          [](Codec& self, std::uint64_t steps) { self.steps = steps; });
  bind_residuals(module);
  py::class_<Compressing, Codec, std::shared_ptr<Compressing>>(module, "Compressing",
                                                               "A compressor by itself.")
      .def(py::init<std::shared_ptr<Compressor>, std::string>(), "compressor"_a, "seed"_a);
  py::class_<IntegerSums, Codec, std::shared_ptr<IntegerSums>>(
      module, "IntegerSums", "Sums of integers of one step for all ranks.")
      .def(py::init<std::shared_ptr<SharedScale>, std::string>(), "scale"_a, "seed"_a);
  bind_power_sgd(module);
  py::class_<ErrorFeedback, Method, std::shared_ptr<ErrorFeedback>> feedback(
      module, "ErrorFeedback", "A codec with residuals.");
  feedback.def(py::init<std::shared_ptr<Codec>, std::shared_ptr<Residuals>>(), "codec"_a,
               "residuals"_a);
  bind_steps(feedback);
  py::class_<Dgc, Method, std::shared_ptr<Dgc>> dgc(module, "Dgc", "Deep gradient compression.");
  dgc.def(py::init([](double ratio, double momentum, std::optional<double> clip,
                      std::int64_t warmup_steps, std::shared_ptr<Residuals> accumulated,
                      std::shared_ptr<Residuals> velocity) {
            return std::make_shared<Dgc>(Dgc::Settings{ratio, momentum, clip, warmup_steps},
                                         std::move(accumulated), std::move(velocity));
          }),
          "ratio"_a, "momentum"_a, "clip"_a, "warmup_steps"_a, "accumulated"_a, "velocity"_a)
      .def("ratio_at", &Dgc::ratio_at, "step"_a);
  bind_steps(dgc);
}

}  // namespace ronde
