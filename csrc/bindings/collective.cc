// The communicator without its collectives, which are in operations.cc and groups.cc, and what it
// is made of.

#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/held.h"
#include "bindings/operations.h"
#include "collective/communicator.h"
#include "collective/piggyback.h"
#include "core/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

/// The hooks run while the GIL is free, so each takes it.
Hooks make_hooks(py::function where, py::function warn, std::optional<py::function> log,
                 std::optional<py::function> stalled) {
  Hooks hooks;
  hooks.check_signals = [] {
    WithGil gil;
    if (PyErr_CheckSignals() != 0) throw PythonError(py::error_already_set());
  };
  hooks.where = [where]() -> std::string {
    WithGil gil;
    try {
      return where().cast<std::string>();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("ronde: finding the caller");
    } catch (const std::exception&) {
      // A name that is no text: the call is shown without its call site.
    }
    return {};
  };
  hooks.warn = [warn](const std::string& text) {
    WithGil gil;
    try {
      warn(to_python(text));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("ronde: showing a warning");
    }
  };
  hooks.enter = [](FunctionRef<void()> run) {
    WithGil gil;
    run();
  };
  if (log) {
    hooks.log = [log = *log](const std::string& line) {
      WithGil gil;
      try {
        log(to_python(line));
      } catch (py::error_already_set& error) {
        error.discard_as_unraisable("ronde: writing a line of the log");
      }
    };
  }
  if (stalled) {
    hooks.stalled = [stalled = *stalled] {
      WithGil gil;
      try {
        stalled();
      } catch (py::error_already_set& error) {
        error.discard_as_unraisable("ronde: reporting a stall");
      }
    };
  }
  return hooks;
}

void bind_settings(py::module_& module) {
  py::class_<Settings>(module, "Settings", "What the environment may set (see settings.py).")
      .def(py::init<>())
      .def_readwrite("segment_bytes", &Settings::segment_bytes)
      .def_readwrite("window", &Settings::window)
      .def_readwrite("check", &Settings::check)
      .def_readwrite("deterministic", &Settings::deterministic)
      .def_readwrite("stall_warning", &Settings::stall_warning)
      .def_readwrite("stall_timeout", &Settings::stall_timeout)
      .def_readwrite("spin", &Settings::spin)
      .def_readwrite("algorithm", &Settings::algorithm);

  py::class_<Link>(module, "Link", "What messages cost: seconds, and seconds per byte.")
      .def(py::init([](double alpha, double overhead, double beta, double gamma) {
             return Link{alpha, overhead, beta, gamma};
           }),
           "alpha"_a, "overhead"_a, "beta"_a, "gamma"_a)
      .def_readonly("alpha", &Link::alpha)
      .def_readonly("overhead", &Link::overhead)
      .def_readonly("beta", &Link::beta)
      .def_readonly("gamma", &Link::gamma);
  module.def("piggyback_seconds", &piggyback_seconds, "bytes"_a, "ranks"_a, "link"_a);
  module.def("better_gathered", &better_gathered, "payload"_a, "ranks"_a, "link"_a);
}

}  // namespace

void bind_collective(py::module_& module) {
  module.def("shared_array", &shared_array, "bytes"_a,
             "Bytes in memory that the ranks of this machine can reach, in one dimension.");
  bind_settings(module);

  py::class_<Control, std::shared_ptr<Control>>(module, "Control",
                                                "Notices between all ranks of the job.")
      .def(py::init([](std::shared_ptr<Transport> transport, py::function where, py::function warn,
                       std::optional<py::function> log, std::optional<py::function> stalled) {
             return std::make_shared<Control>(
                 std::move(transport),
                 make_hooks(std::move(where), std::move(warn), std::move(log), std::move(stalled)));
           }),
           "transport"_a, "where"_a, "warn"_a, "log"_a = py::none(), "stalled"_a = py::none())
      .def_property_readonly("flight_record", &Control::flight_record)
      .def_property_readonly("failure",
                             [](const Control& self) { return to_python(self.failure()); })
      .def("listen",
           [](Control& self) {
             {
               WithoutGil release;
               try {
                 self.poll({});
               } catch (const Error&) {
                 // It is what `failure` says.
               }
             }
             return to_python(self.failure());
           })
      .def(
          "fail",
          [](Control& self, const std::string& why) {
            WithoutGil release;
            self.announce_failure({-1, 0, why}, false);
          },
          "why"_a)
      .def("close", &Control::close, py::call_guard<WithoutGil>());

  py::class_<Communicator> communicator(module, "Communicator",
                                        "The collectives of one process set.");
  communicator
      .def(py::init<std::shared_ptr<Control>, std::shared_ptr<Transport>, int, std::vector<int>,
                    Settings>(),
           "control"_a, "transport"_a, "set"_a, "members"_a, "settings"_a)
      .def_property_readonly("rank", &Communicator::rank)
      .def_property_readonly("size", &Communicator::size)
      .def_property_readonly("settings", &Communicator::settings)
      .def_property_readonly("local_size", &Communicator::local_size)
      .def_property_readonly("local_rank", &Communicator::local_rank)
      .def_property_readonly("link", [](Communicator& self) -> Link { return self.link(); })
      .def("set_link", &Communicator::set_link, "link"_a, py::call_guard<WithoutGil>())
      .def(
          "share_memory",
          [](Communicator& self, const std::vector<int>& machines) {
            if (!machines.empty() && static_cast<int>(machines.size()) != self.size())
              throw ArgumentError("a machine for each member is needed");
            WithoutGil release;
            return self.share_memory(machines);
          },
          "machines"_a = std::vector<int>())
      .def("use_nccl", &Communicator::use_nccl)
      .def("use_nccl_inside", &Communicator::use_nccl_inside)
      .def("know_link", &Communicator::know_link, py::call_guard<WithoutGil>())
      .def_property_readonly("bytes_sent", &Communicator::bytes_sent)
      .def(
          "end",
          [](Communicator& self, const Call& call, const std::vector<Communicator*>& sets) {
            WithoutGil free;
            self.end(call, sets);
          },
          "call"_a, "sets"_a = std::vector<Communicator*>())
      .def("close", &Communicator::close, "why"_a, py::call_guard<WithoutGil>())
      .def_property_readonly("is_inside", &Communicator::is_inside)
      .def_property_readonly("failure",
                             [](const Communicator& self) { return to_python(self.failure()); });
  bind_operations(module, communicator);
  bind_groups(module, communicator);
}

}  // namespace ronde
