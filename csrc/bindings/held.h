// Python objects that calls hold. Calls end on any thread, without the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "core/error.h"

namespace ronde {

/// Once none needs it any more, give_back_objects() gives it back.
std::shared_ptr<PyObject> held(pybind11::object object);
void give_back_objects();

/// What Python has raised in a call: any thread may throw it, several times, and let it go. It is
/// made with the GIL.
class PythonError : public Error {
 public:
  explicit PythonError(pybind11::object raised);
  explicit PythonError(const pybind11::error_already_set& error);

  /// With the GIL: it is raised.
  void set() const;

 private:
  std::shared_ptr<PyObject> raised_;
};

}  // namespace ronde
