#include "bindings/arguments.h"

#include <iterator>
#include <utility>

namespace py = pybind11;

namespace ronde {
namespace {

const char* text_of(Op op) {
  constexpr const char* kTexts[] = {"sum", "average", "min", "max", "product", "adasum"};
  return kTexts[static_cast<int>(op)];
}

const char* name_of(Op op) {
  constexpr const char* kNames[] = {"Sum", "Average", "Min", "Max", "Product", "Adasum"};
  return kNames[static_cast<int>(op)];
}

ReduceOp core_op(Op op) {
  constexpr ReduceOp kOps[] = {ReduceOp::sum, ReduceOp::sum,     ReduceOp::min,
                               ReduceOp::max, ReduceOp::product, ReduceOp::sum};
  return kOps[static_cast<int>(op)];
}

double factor_from(const char* what, py::handle value) {
  const double factor = PyFloat_AsDouble(value.ptr());
  if (factor != -1.0 || !PyErr_Occurred()) return factor;
  const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError);
  PyErr_Clear();
  if (too_large) throw py::value_error(std::string(what) + " is too large for a float");
  throw py::type_error(std::string(what) + " must be a number, not " + shown(value));
}

// Members of Op as Python has them. They live as long as the process.
PyObject* members[static_cast<int>(Op::adasum) + 1];

/// By identity, which is quick; a copy of a member is another object.
Op op_from(py::handle value) {
  for (int i = 0; i < static_cast<int>(std::size(members)); ++i) {
    if (value.ptr() == members[i]) return static_cast<Op>(i);
  }
  if (py::isinstance<Op>(value)) return value.cast<Op>();
  throw py::type_error("op must be one of ronde.Sum, Average, Min, Max, Product and Adasum, not " +
                       shown(value));
}

}  // namespace

std::string shown(py::handle value) { return py::repr(value).cast<std::string>(); }

std::string name_from(py::handle name) {
  if (name.is_none()) return {};
  if (!PyUnicode_Check(name.ptr()))
    throw py::type_error("name must be a string, not " + shown(name));
  Py_ssize_t length = 0;
  if (const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &length)) return {text, text + length};
  PyErr_Clear();  // half a surrogate pair
  return py::cast<std::string>(name.attr("encode")("utf-8", "replace"));
}

Reducing::Reducing(const Communicator& communicator, py::handle op_object, DType dtype,
                   py::handle prescale, py::handle postscale) {
  op = op_from(op_object);
  reduction.dtype = dtype;
  reduction.op = core_op(op);
  reduction.prescale = factor_from("prescale_factor", prescale);
  reduction.postscale = factor_from("postscale_factor", postscale);
  if (op == Op::average) {
    reduction.divisor = communicator.size();
    // Of one rank too, a half type may not hold what comes between both factors (reduction.h).
    if (communicator.size() == 1 && is_half(dtype))
      reduction.postscale *= std::exchange(reduction.prescale, 1.0);
  }
  reduction.adaptive = op == Op::adasum;
  if (is_floating(dtype)) return;
  const std::string type(ronde::name_of(dtype));
  if (op == Op::average)
    throw py::type_error("the average of " + type +
                         " would have to be rounded; use op=ronde.Sum, or a floating type, "
                         "as np.asarray(x, np.float32)");
  if (op == Op::adasum)
    throw py::type_error("Adasum of " + type +
                         " would have to be rounded; use op=ronde.Sum, or a floating type, as "
                         "np.asarray(x, np.float32)");
  if (reduction.prescale != 1.0 || reduction.postscale != 1.0)
    throw py::type_error("prescale_factor and postscale_factor need a floating type, not " + type);
}

void Reducing::describe(Call& call) const {
  call.op = text_of(op);
  call.prescale = reduction.prescale;
  call.postscale = reduction.postscale;
}

void Reducing::require_compressible() const {
  if (op != Op::sum && op != Op::average)
    throw py::value_error(
        std::string("compression needs op=ronde.Sum or ronde.Average, not ronde.") + name_of(op));
  if (!is_floating(reduction.dtype))
    throw py::type_error("compression needs a floating type, not " +
                         std::string(ronde::name_of(reduction.dtype)) +
                         "; without it, the reduction is exact");
}

void Reducing::require_elementwise(const char* kind) const {
  if (op == Op::adasum)
    throw py::value_error(std::string(kind) +
                          " cannot do op=ronde.Adasum, whose coefficients are those of whole "
                          "arrays; use ronde.allreduce and take your part of its result");
}

void bind_op(py::module_& module) {
  py::enum_<Op> ops(module, "Op", "How the contributions of the ranks become one.");
  for (int i = 0; i < static_cast<int>(std::size(members)); ++i) {
    const char* name = name_of(static_cast<Op>(i));
    ops.value(name, static_cast<Op>(i));
    members[i] = py::object(ops.attr(name)).release().ptr();
  }
  ops.attr("__repr__") = py::cpp_function([](Op op) { return std::string("ronde.") + name_of(op); },
                                          py::is_method(ops));
  ops.attr("__str__") = ops.attr("__repr__");
}

}  // namespace ronde
