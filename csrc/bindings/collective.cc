// The communicator, and its collectives for calls that Python makes itself: those of objects and
// parameters, scatter, and tests, which also name algorithms. The others are in operations.cc
// and groups.cc.
// Arrays come as contiguous NumPy arrays whose bytes are of the dtype that the call names; the
// Python layer (arrays.py) sees to that. The GIL is free while a collective runs.

#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/operations.h"
#include "collective/communicator.h"
#include "core/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

py::tuple pair_of(Gathered gathered) {
  return py::make_tuple(gathered.rows, array_of(std::move(gathered.data)));
}

/// An exception of a handler of signals, with its name for the other ranks.
class Interruption : public py::error_already_set {
 public:
  Interruption() {
    const auto message = py::reinterpret_steal<py::object>(PyObject_Str(value().ptr()));
    PyErr_Clear();
    text_ = py::cast<std::string>(type().attr("__name__"));
    if (message && py::len(message) > 0)
      text_ += ": " + py::cast<std::string>(message.attr("encode")("utf-8", "replace"));
  }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

/// The hooks run while the GIL is free, so each takes it.
Hooks make_hooks(py::function where, py::function warn, std::optional<py::function> log) {
  Hooks hooks;
  hooks.check_signals = [] {
    WithGil gil;
    if (PyErr_CheckSignals() != 0) throw Interruption();
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
  return hooks;
}

void allreduce(Communicator& self, const Call& call, const std::vector<py::array>& inputs,
               std::vector<py::array>& outputs, const Reduction& reduction,
               const std::string& algorithm) {
  if (inputs.size() != outputs.size()) throw ArgumentError("as many outputs as inputs are needed");
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    pieces.push_back({input_of(inputs[i]), output_of(outputs[i])});
    if (pieces[i].input.bytes != pieces[i].output.bytes)
      throw ArgumentError("an output is not of the size of its input");
  }
  run_collective(self, {py::cast(inputs), py::cast(outputs)},
                 [&] { self.allreduce(call, pieces, reduction, algorithm); });
}

void reduce_scatter(Communicator& self, const Call& call, const py::array& input, py::array& output,
                    const std::vector<std::size_t>& counts, const Reduction& reduction,
                    const std::string& algorithm) {
  const auto in = input_of(input);
  const auto out = output_of(output);
  const auto chunks = Chunks::of(counts);
  if (chunks.size() != self.size() || chunks.total() * size_of(reduction.dtype) != in.bytes ||
      chunks.count(self.rank()) * size_of(reduction.dtype) != out.bytes)
    throw ArgumentError("the counts do not fit the arrays");
  run_collective(self, {input, output},
                 [&] { self.reduce_scatter(call, in, out, chunks, reduction, algorithm); });
}

void reduce(Communicator& self, const Call& call, const py::array& input,
            std::optional<py::array>& output, const Reduction& reduction, int root,
            const std::string& algorithm) {
  const auto in = input_of(input);
  const auto out = output ? output_of(*output) : Buffer{};
  if (self.rank() == root && out.bytes != in.bytes)
    throw ArgumentError("the output is not of the size of the input");
  run_collective(self, {input, output ? py::handle(*output) : py::none()},
                 [&] { self.reduce(call, in, out, reduction, root, algorithm); });
}

void broadcast(Communicator& self, const Call& call, py::array& data, int root,
               const std::string& algorithm) {
  const auto buffer = output_of(data);
  run_collective(self, {data}, [&] { self.broadcast(call, buffer, root, algorithm); });
}

void require_bytes(const ConstBuffer& buffer, std::size_t rows, std::size_t row_bytes) {
  if (buffer.bytes != rows * row_bytes) throw ArgumentError("the rows do not fit the array");
}

std::size_t sum(const std::vector<std::size_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::size_t{0});
}

py::tuple allgather(Communicator& self, const Call& call, const py::array& mine, std::size_t rows,
                    std::size_t row_bytes, const std::string& algorithm) {
  const auto input = input_of(mine);
  require_bytes(input, rows, row_bytes);
  return pair_of(run_collective(
      self, {mine}, [&] { return self.allgather(call, input, rows, row_bytes, algorithm); }));
}

py::tuple gather(Communicator& self, const Call& call, const py::array& mine, std::size_t rows,
                 std::size_t row_bytes, int root, const std::string& algorithm) {
  const auto input = input_of(mine);
  require_bytes(input, rows, row_bytes);
  return pair_of(run_collective(
      self, {mine}, [&] { return self.gather(call, input, rows, row_bytes, root, algorithm); }));
}

py::tuple scatter(Communicator& self, const Call& call, const std::optional<py::array>& all,
                  const std::vector<std::size_t>& rows, std::size_t row_bytes,
                  const std::vector<std::int64_t>& header, int root, const std::string& algorithm) {
  const auto input = all ? input_of(*all) : ConstBuffer{};
  if (self.rank() == root) {
    require_bytes(input, sum(rows), row_bytes);
    if (static_cast<int>(rows.size()) != self.size() || header.size() > Communicator::kHeaderWords)
      throw ArgumentError("the parts do not fit the communicator");
  }
  auto result = run_collective(self, {all ? py::handle(*all) : py::none()}, [&] {
    return self.scatter(call, input, {rows, row_bytes, header}, root, algorithm);
  });
  return py::make_tuple(result.rows, array_of(std::move(result.data)), result.header);
}

py::tuple alltoall(Communicator& self, const Call& call, const py::array& all,
                   const std::vector<std::size_t>& rows, std::size_t row_bytes,
                   const std::string& algorithm) {
  const auto input = input_of(all);
  require_bytes(input, sum(rows), row_bytes);
  if (static_cast<int>(rows.size()) != self.size())
    throw ArgumentError("the rows do not fit the communicator");
  return pair_of(run_collective(
      self, {all}, [&] { return self.alltoall(call, input, rows, row_bytes, algorithm); }));
}

void bind_call(py::module_& module) {
  py::class_<Call>(module, "Call", "What the ranks must have in common, and how to speak of it.")
      .def(py::init([](std::string kind, std::string name, std::optional<DType> dtype,
                       std::optional<std::vector<std::int64_t>> shape, bool any_first_dimension,
                       std::string op, int root, double prescale, double postscale,
                       std::string detail) {
             return Call{std::move(kind),     std::move(name),  dtype, std::move(shape),
                         any_first_dimension, std::move(op),    root,  prescale,
                         postscale,           std::move(detail)};
           }),
           "kind"_a, "name"_a = "", "dtype"_a = py::none(), "shape"_a = py::none(),
           "any_first_dimension"_a = false, "op"_a = "", "root"_a = -1, "prescale"_a = 1.0,
           "postscale"_a = 1.0, "detail"_a = "")
      .def_property_readonly("fingerprint", &Call::fingerprint)
      .def("__str__", &Call::text);
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

  py::class_<Reduction>(module, "Reduction", "What a reduction does to its elements.")
      .def(
          py::init([](DType dtype, ReduceOp op, double prescale, double divisor, double postscale) {
            return Reduction{dtype, op, prescale, divisor, postscale};
          }),
          "dtype"_a, "op"_a, "prescale"_a = 1.0, "divisor"_a = 1.0, "postscale"_a = 1.0);

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
  module.def(
      "is_plain", [](py::handle x) { return plain_dtype(x).has_value(); }, "x"_a,
      "Whether collectives take this array as it is.");
  bind_op(module);
  bind_call(module);
  bind_settings(module);

  py::class_<Control, std::shared_ptr<Control>>(module, "Control",
                                                "Notices between all ranks of the job.")
      .def(py::init([](std::shared_ptr<Transport> transport, py::function where, py::function warn,
                       std::optional<py::function> log) {
             return std::make_shared<Control>(
                 std::move(transport),
                 make_hooks(std::move(where), std::move(warn), std::move(log)));
           }),
           "transport"_a, "where"_a, "warn"_a, "log"_a = py::none())
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
      .def_property_readonly("link", [](const Communicator& self) -> Link { return self.link(); })
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
      .def("know_link", py::overload_cast<>(&Communicator::know_link), py::call_guard<WithoutGil>())
      .def_property_readonly("bytes_sent", &Communicator::bytes_sent)
      .def("allreduce", &allreduce, "call"_a, "inputs"_a, "outputs"_a, "reduction"_a,
           "algorithm"_a = "")
      .def("reduce_scatter", &reduce_scatter, "call"_a, "input"_a, "output"_a, "counts"_a,
           "reduction"_a, "algorithm"_a = "")
      .def("reduce", &reduce, "call"_a, "input"_a, "output"_a, "reduction"_a, "root"_a = 0,
           "algorithm"_a = "")
      .def("broadcast", &broadcast, "call"_a, "data"_a, "root"_a = 0, "algorithm"_a = "")
      .def("allgather", &allgather, "call"_a, "mine"_a, "rows"_a, "row_bytes"_a, "algorithm"_a = "")
      .def("gather", &gather, "call"_a, "mine"_a, "rows"_a, "row_bytes"_a, "root"_a = 0,
           "algorithm"_a = "")
      .def("scatter", &scatter, "call"_a, "all"_a, "rows"_a, "row_bytes"_a, "header"_a,
           "root"_a = 0, "algorithm"_a = "")
      .def("alltoall", &alltoall, "call"_a, "all"_a, "rows"_a, "row_bytes"_a, "algorithm"_a = "")
      .def("barrier", &Communicator::barrier, "call"_a, py::call_guard<WithoutGil>())
      .def(
          "end",
          [](Communicator& self, const Call& call, const std::vector<Communicator*>& sets) {
            WithoutGil free;
            self.end(call, sets);
          },
          "call"_a, "sets"_a = std::vector<Communicator*>())
      .def("close", &Communicator::close, "why"_a, py::call_guard<WithoutGil>())
      .def_property_readonly("failure",
                             [](const Communicator& self) { return to_python(self.failure()); });
  bind_operations(module, communicator);
  bind_groups(module, communicator);
}

}  // namespace ronde
