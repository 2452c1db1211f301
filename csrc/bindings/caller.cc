#include "bindings/caller.h"

#include <memory>
#include <mutex>
#include <vector>

#include "bindings/gil.h"

namespace py = pybind11;

namespace ronde {
namespace {

/// Python objects that nobody needs any more. Who moves calls has no GIL, and must not wait for it:
/// they are given back by the next call from Python.
struct Dropped {
  std::mutex mutex;
  std::vector<PyObject*> objects;
};

Dropped& dropped() {
  static auto& all = *new Dropped;  // never destroyed
  return all;
}

void drop(PyObject* object) {
  const std::lock_guard lock(dropped().mutex);
  dropped().objects.push_back(object);
}

}  // namespace

void give_back_objects() {
  std::vector<PyObject*> objects;
  {
    const std::lock_guard lock(dropped().mutex);
    objects.swap(dropped().objects);
  }
  for (auto* object : objects) Py_DECREF(object);
}

std::shared_ptr<PyObject> held(py::object object) { return {object.release().ptr(), drop}; }

py::object Caller::submit(Submission::What what, std::initializer_list<py::handle> arrays,
                          Finish finish) const {
  give_back_objects();
  py::list kept;
  for (const auto& array : arrays) kept.append(array);
  auto submission = std::make_shared<Submission>(std::move(what), held(std::move(kept)));
  {
    WithoutGil release;
    engine_->submit(set, submission);
  }
  return py::make_tuple(std::move(submission), std::move(finish));
}

}  // namespace ronde
