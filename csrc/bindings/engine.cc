// The engine without its collectives, which are in operations.cc.

#include "engine/engine.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/caller.h"
#include "bindings/gil.h"
#include "bindings/operations.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {

void bind_engine(py::module_& module) {
  py::class_<PendingCall, std::shared_ptr<PendingCall>>(module, "PendingCall",
                                                        "An asynchronous call under way.")
      .def(py::init<const std::vector<std::shared_ptr<PendingCall>>&>(), "calls"_a)
      .def_property_readonly("done", &PendingCall::done)
      .def("poll", &PendingCall::poll)
      .def("wait", &PendingCall::wait, "seconds"_a = py::none())
      .def("result", &PendingCall::result);

  py::class_<Engine, std::shared_ptr<Engine>> engine(module, "Engine", "Moves asynchronous calls.");
  engine
      .def(py::init<std::shared_ptr<Control>, std::size_t, bool, bool, std::optional<int>>(),
           "control"_a, "fusion_bytes"_a, "spin"_a, "worker"_a, "core"_a = py::none())
      .def("stop", &Engine::stop, py::call_guard<WithoutGil>())
      .def(
          "join",
          [](Engine& self, Communicator& set, bool contributing) {
            WithoutGil free;
            return self.join(set, contributing ? Join::contributing : Join::size);
          },
          "set"_a, "contributing"_a)
      .def("leave", &Engine::leave, "sets"_a, py::call_guard<WithoutGil>())
      .def("busy", &Engine::busy, "set"_a, py::call_guard<WithoutGil>())
      .def("gave_up", &Engine::gave_up, "set"_a, py::call_guard<WithoutGil>())
      .def("forget", &Engine::forget)
      .def("drain", &Engine::drain, "set"_a, "why"_a, py::call_guard<WithoutGil>())
      .def("close", &Engine::close, "set"_a, "why"_a, py::call_guard<WithoutGil>());
  bind_operations(engine);
  bind_groups(engine);
}

}  // namespace ronde
