#include "bindings/held.h"

#include <mutex>
#include <utility>
#include <vector>

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

/// Type and message.
std::string text_of(const py::object& raised) {
  auto text = py::cast<std::string>(py::type::of(raised).attr("__name__"));
  const auto message = py::reinterpret_steal<py::object>(PyObject_Str(raised.ptr()));
  PyErr_Clear();
  if (message && py::len(message) > 0)
    text += ": " + py::cast<std::string>(message.attr("encode")("utf-8", "replace"));
  return text;
}

py::object with_traceback(const py::error_already_set& error) {
  if (error.trace()) PyException_SetTraceback(error.value().ptr(), error.trace().ptr());
  return error.value();
}

}  // namespace

std::shared_ptr<PyObject> held(py::object object) { return {object.release().ptr(), drop}; }

void give_back_objects() {
  std::vector<PyObject*> objects;
  {
    // If a thread has the lock they are given back the next time. (A child that was forked may find
    // it locked for ever.)
    const std::unique_lock lock(dropped().mutex, std::try_to_lock);
    if (!lock.owns_lock()) return;
    objects.swap(dropped().objects);
  }
  for (auto* object : objects) Py_DECREF(object);
}

PythonError::PythonError(py::object raised)
    : Error(text_of(raised)), raised_(held(std::move(raised))) {}

PythonError::PythonError(const py::error_already_set& error) : PythonError(with_traceback(error)) {}

void PythonError::set() const {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(raised_.get())), raised_.get());
}

}  // namespace ronde
