// Element types, operations, and the translation of errors.

#include <pybind11/stl.h>

#include <cstring>
#include <exception>
#include <string>

#include "bindings/bindings.h"
#include "bindings/held.h"
#include "core/bytes.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/segment_names.h"
#include "core/watchdog.h"

namespace py = pybind11;

namespace ronde {
namespace {

void raise(const char* type, const std::exception& error) {
  // Not by py::str, which refuses what is no UTF-8.
  const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
      error.what(), static_cast<py::ssize_t>(std::strlen(error.what())), "replace"));
  PyErr_SetObject(py::module_::import("ronde.errors").attr(type).ptr(), text.ptr());
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const PythonError& error) {
    error.set();
  } catch (const MismatchError& error) {
    raise("MismatchError", error);
  } catch (const RankFailedError& error) {
    raise("RankFailedError", error);
  } catch (const StalledError& error) {
    raise("StalledError", error);
  } catch (const UnavailableError& error) {
    raise("UnavailableError", error);
  } catch (const Error& error) {
    raise("RondeError", error);
  }
}

}  // namespace

void bind_core(py::module_& module) {
  py::register_local_exception_translator(translate);

  py::class_<Watchdog>(module, "Watchdog", "Monitors a call that cannot be interrupted.")
      .def(py::init<std::string, double, double>(), py::arg("text"), py::arg("warning"),
           py::arg("timeout"))
      .def("stop", &Watchdog::stop);

  module.attr("SEGMENT_NAMES") = py::tuple(py::cast(kSegmentNames));
  module.def("segment_names", &segment_names, py::arg("process"),
             "The files that MPI has made in /dev/shm and that a process has open.");
  module.def("remove_segment_names", &remove_segment_names,
             "Removes those of this process. No other rank may need to open them any more.");
  module.def("release_kept", &Bytes::release_kept,
             "Gives the memory that is kept for large results to come back to the system. Returns "
             "how many bytes that was.");

  py::enum_<DType> dtypes(module, "DType", "An element type that collectives understand.");
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    dtypes.value(std::string(name_of(dtype)).c_str(), dtype);
  }
  py::enum_<ReduceOp> ops(module, "ReduceOp", "How two elements become one.");
  for (int i = 0; i < kReduceOpCount; ++i) {
    const auto op = static_cast<ReduceOp>(i);
    ops.value(std::string(name_of(op)).c_str(), op);
  }
}

}  // namespace ronde
