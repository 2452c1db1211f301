// The engine without its collectives, which are in operations.cc.

#include "engine/engine.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/bindings.h"
#include "bindings/caller.h"
#include "bindings/gil.h"
#include "bindings/operations.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {

void bind_engine(py::module_& module) {
  py::class_<Submission, std::shared_ptr<Submission>>(module, "Submission",
                                                      "An asynchronous call under way.")
      .def_property_readonly("done", &Submission::done)
      .def("result", &Submission::result,
           "Once done: raises what has ended the call, if anything has.");

  py::class_<Finish>(module, "Finish", "What gives the result of a call that has ended, once.")
      .def("__call__", [](Finish& self) {
        // What it holds is not needed any more.
        return std::exchange(self.make, nullptr)();
      });

  py::class_<Engine, std::shared_ptr<Engine>> engine(module, "Engine", "Moves asynchronous calls.");
  engine
      .def(py::init<std::shared_ptr<Control>, std::size_t, bool, bool>(), "control"_a,
           "fusion_bytes"_a, "spin"_a, "worker"_a)
      .def("stop", &Engine::stop, py::call_guard<WithoutGil>())
      .def(
          "poll",
          [](Engine& self, const std::shared_ptr<Submission>& submission) {
            bool done = false;
            {
              WithoutGil release;
              done = self.poll(*submission);
            }
            give_back_objects();
            return done;
          },
          "submission"_a)
      .def(
          "wait",
          [](Engine& self, const std::shared_ptr<Submission>& submission,
             std::optional<double> seconds) {
            bool done = false;
            {
              WithoutGil release;
              done = self.wait(*submission, seconds);
            }
            give_back_objects();
            return done;
          },
          "submission"_a, "seconds"_a = py::none())
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
