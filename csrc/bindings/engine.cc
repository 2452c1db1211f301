// Asynchronous calls as Python's public functions submit them. They take what the blocking ones
// take (operations.cc), and give a handle.

#include "engine/engine.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/operand.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

/// Python objects that nobody needs any more. Whoever moves calls has no GIL, and must not wait for
/// it: they are given back by the next call from Python.
class Dropped {
 public:
  static Dropped& all() {
    static auto& dropped = *new Dropped;  // never destroyed
    return dropped;
  }
  void add(PyObject* object) {
    const std::lock_guard lock(mutex_);
    objects_.push_back(object);
  }
  void give_back() {
    std::vector<PyObject*> objects;
    {
      const std::lock_guard lock(mutex_);
      objects.swap(objects_);
    }
    for (auto* object : objects) Py_DECREF(object);
  }

 private:
  std::mutex mutex_;
  std::vector<PyObject*> objects_;
};

std::shared_ptr<const void> owned(py::object object) {
  return {object.release().ptr(), [](PyObject* held) { Dropped::all().add(held); }};
}

/// Calls without a name are told apart by their order.
std::string key_of(const Call& call) {
  return call.kind + (call.name.empty() ? "#" : "/") + call.name;
}

/// Submits, and returns what Python waits for.
std::shared_ptr<Submission> submit(Engine& engine, Communicator& set, Call call,
                                   Submission::Begin begin, std::optional<Fusable> fusable,
                                   const py::object& arrays) {
  Dropped::all().give_back();
  auto key = key_of(call);
  auto submission = std::make_shared<Submission>(std::move(key), std::move(call), std::move(begin),
                                                 std::move(fusable), owned(arrays));
  WithoutGil release;
  engine.submit(set, submission);
  return submission;
}

/// The call, and the array that gets its result.
py::object allreduce(Engine& engine, Communicator& set, py::handle x, py::handle output,
                     py::handle op, py::handle name, py::handle prescale, py::handle postscale,
                     py::handle given) {
  const auto operand = operand_of(x, given);
  if (!operand) return py::none();
  const auto& [input, dtype] = *operand;
  const Reducing reducing(set, op, dtype, prescale, postscale);
  Call call = call_of("allreduce", name, *operand);
  reducing.describe(call);
  auto result = output.is_none() ? new_like(input) : py::cast<py::array>(output);
  const Fusable fusable{{input_of(input), output_of(result)}, reducing.reduction};
  auto submission =
      submit(engine, set, std::move(call), {}, fusable, py::make_tuple(input, result));
  return py::make_tuple(std::move(submission), result);
}

py::object broadcast(Engine& engine, Communicator& set, py::handle x, int root, py::handle name,
                     py::handle given) {
  auto operand = operand_of(x, given);
  if (!operand) return py::none();
  Call call = call_of("broadcast", name, *operand);
  call.root = set.members().at(root);
  const auto data = output_of(operand->array);
  const auto begin = [data, root](Routes& routes, Operation& operation) {
    return routes.choose(Collective::broadcast, {}).broadcast(operation, data, root, {});
  };
  auto submission = submit(engine, set, std::move(call), begin, {}, operand->array);
  return py::make_tuple(std::move(submission), operand->array);
}

std::shared_ptr<Submission> barrier(Engine& engine, Communicator& set, py::handle name) {
  Call call;
  call.kind = "barrier";
  call.name = name_from(name);
  // That all ranks have it is all there is to it.
  static constexpr std::byte nothing{};
  const Buffer none{const_cast<std::byte*>(&nothing), 0, {}};
  const auto begin = [none](Routes& routes, Operation& operation) {
    return routes.choose(Collective::broadcast, {}).broadcast(operation, none, 0, {});
  };
  return submit(engine, set, std::move(call), begin, {}, py::none());
}

}  // namespace

void bind_engine(py::module_& module) {
  py::class_<Submission, std::shared_ptr<Submission>>(module, "Submission",
                                                      "An asynchronous call under way.")
      .def_property_readonly("done", &Submission::done)
      .def("result", &Submission::result,
           "Once done: raises what has ended the call, if anything.");

  py::class_<Engine, std::shared_ptr<Engine>>(module, "Engine", "Moves asynchronous calls.")
      .def(py::init<std::shared_ptr<Control>, std::size_t, bool>(), "control"_a, "fusion_bytes"_a,
           "spin"_a)
      .def("allreduce", &allreduce, "set"_a, "x"_a, "output"_a, "op"_a, "name"_a, "prescale"_a,
           "postscale"_a, "dtype"_a = py::none())
      .def("broadcast", &broadcast, "set"_a, "x"_a, "root"_a, "name"_a, "dtype"_a = py::none())
      .def("barrier", &barrier, "set"_a, "name"_a)
      .def("poll", &Engine::poll, "submission"_a, py::call_guard<WithoutGil>())
      .def(
          "wait",
          [](Engine& self, const std::shared_ptr<Submission>& submission,
             std::optional<double> seconds) {
            bool done = false;
            {
              WithoutGil release;
              done = self.wait(*submission, seconds);
            }
            Dropped::all().give_back();
            return done;
          },
          "submission"_a, "seconds"_a = py::none())
      .def("leave", &Engine::leave, "sets"_a, py::call_guard<WithoutGil>())
      .def("busy", &Engine::busy, "set"_a, py::call_guard<WithoutGil>())
      .def("drain", &Engine::drain, "set"_a, py::call_guard<WithoutGil>())
      .def("close", &Engine::close, "set"_a, "why"_a, py::call_guard<WithoutGil>());
}

}  // namespace ronde
