// Schedules for Python: what `ronde explain` prints and the tests prove.
#include "schedule/schedule.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "collective/select.h"
#include "core/error.h"
#include "schedule/cost.h"
#include "schedule/simulate.h"

namespace ronde {
namespace {

namespace py = pybind11;

using Counts = std::vector<std::size_t>;

const char* name_of(Where where) {
  constexpr const char* names[] = {"input", "data", "scratch"};
  return names[static_cast<int>(where)];
}

const char* name_of(Verb verb) {
  constexpr const char* names[] = {"send", "recv", "recv_reduce", "copy", "reduce"};
  return names[static_cast<int>(verb)];
}

const char* name_of(Order order) {
  return order == Order::range_first ? "range_first" : "other_first";
}

py::tuple tuple_of(const Range& range) {
  return py::make_tuple(name_of(range.where), range.offset, range.count);
}

/// (verb, step, peer, range, source, order), with None for what this verb does not have.
py::tuple tuple_of(const Action& action) {
  const bool local = action.verb == Verb::copy || action.verb == Verb::reduce;
  const bool reduces = action.verb == Verb::recv_reduce || action.verb == Verb::reduce;
  return py::make_tuple(
      name_of(action.verb), action.step, local ? py::object(py::none()) : py::int_(action.peer),
      tuple_of(action.range), local ? py::object(tuple_of(action.source)) : py::none(),
      reduces ? py::object(py::str(name_of(action.order))) : py::none());
}

py::list list_of_actions(const Schedule& schedule) {
  py::list actions;
  for (const Action& action : schedule.actions) actions.append(tuple_of(action));
  return actions;
}

py::list list_of_algorithms() {
  py::list rows;
  for (const Algorithm& row : algorithms()) {
    rows.append(py::make_tuple(ronde::name_of(row.collective), row.name, row.position_independent,
                               row.any_size));
  }
  return rows;
}

const Algorithm& algorithm_named(const std::string& collective, const std::string& name) {
  return find_algorithm(find_collective(collective), name);
}

Schedule build(const Algorithm& algorithm, const Layout& layout) {
  if (!algorithm.supports(layout.size())) {
    throw ArgumentError(std::string(algorithm.name) + " needs a power of two of ranks, not " +
                        std::to_string(layout.size()));
  }
  return algorithm.build(layout);
}

Schedule schedule_named(const std::string& collective, const std::string& name, int rank,
                        const Counts& counts, int root) {
  const Algorithm& algorithm = algorithm_named(collective, name);
  return build(algorithm, layout_of(algorithm.collective, counts, rank, root));
}

Cost cost_named(const std::string& collective, const std::string& name, const Counts& counts,
                int root, std::size_t item_bytes, double alpha, double overhead, double beta,
                double gamma, std::optional<int> rank) {
  const Schedule schedule = schedule_named(collective, name, rank.value_or(root), counts, root);
  return cost_of(schedule, item_bytes, {alpha, overhead, beta, gamma});
}

/// (name, cost) of each algorithm for that many ranks, the one to take first.
py::list list_of_candidates(const std::string& collective, const Counts& counts, int root,
                            std::size_t item_bytes, double alpha, double overhead, double beta,
                            double gamma) {
  const Collective found = find_collective(collective);
  const Layout layout = layout_of(found, counts, root, root);
  py::list list;
  for (const Candidate& candidate :
       candidates(found, layout, item_bytes, {alpha, overhead, beta, gamma}, Settings{}))
    list.append(py::make_tuple(candidate.algorithm->name, candidate.cost));
  return list;
}

Simulation simulate_named(const std::string& collective, const std::string& name,
                          const Counts& counts, int root, int window) {
  return simulate(algorithm_named(collective, name), counts, root, window);
}

}  // namespace

void bind_schedule(py::module_& module) {
  py::class_<Schedule>(module, "Schedule")
      .def_readonly("scratch", &Schedule::scratch)
      .def_readonly("steps", &Schedule::steps)
      .def_property_readonly("actions", &list_of_actions);

  py::class_<Cost>(module, "Cost")
      .def_readonly("steps", &Cost::steps)
      .def_readonly("messages", &Cost::messages)
      .def_readonly("sent", &Cost::sent)
      .def_readonly("received", &Cost::received)
      .def_readonly("reduced", &Cost::reduced)
      .def_readonly("seconds", &Cost::seconds);

  py::class_<SimulatedRank>(module, "SimulatedRank")
      .def_readonly("messages", &SimulatedRank::messages)
      .def_readonly("sent", &SimulatedRank::sent)
      .def_readonly("received", &SimulatedRank::received)
      .def_readonly("reduced", &SimulatedRank::reduced);

  py::class_<Simulation>(module, "Simulation")
      .def_readonly("error", &Simulation::error)
      .def_readonly("ranks", &Simulation::ranks)
      .def_readonly("steps", &Simulation::steps)
      .def_readonly("depth", &Simulation::depth)
      .def_readonly("same_bits", &Simulation::same_bits)
      .def_readonly("position_independent", &Simulation::position_independent)
      .def_readonly("tree", &Simulation::tree);

  module.def("algorithms", &list_of_algorithms);
  module.def("schedule", &schedule_named, py::arg("collective"), py::arg("name"), py::arg("rank"),
             py::arg("counts"), py::arg("root") = 0);
  const Link link;
  module.def("default_link", [link] {
    py::dict parameters;
    parameters["alpha"] = link.alpha;
    parameters["overhead"] = link.overhead;
    parameters["beta"] = link.beta;
    parameters["gamma"] = link.gamma;
    return parameters;
  });
  module.def("cost", &cost_named, py::arg("collective"), py::arg("name"), py::arg("counts"),
             py::arg("root") = 0, py::arg("item_bytes") = 4, py::arg("alpha") = link.alpha,
             py::arg("overhead") = link.overhead, py::arg("beta") = link.beta,
             py::arg("gamma") = link.gamma, py::arg("rank") = py::none());
  module.def("candidates", &list_of_candidates, py::arg("collective"), py::arg("counts"),
             py::arg("root") = 0, py::arg("item_bytes") = 4, py::arg("alpha") = link.alpha,
             py::arg("overhead") = link.overhead, py::arg("beta") = link.beta,
             py::arg("gamma") = link.gamma);
  module.def("simulate", &simulate_named, py::arg("collective"), py::arg("name"), py::arg("counts"),
             py::arg("root") = 0, py::arg("window") = 2, py::call_guard<WithoutGil>());
}

}  // namespace ronde
