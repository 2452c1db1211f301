// Methods written in Python. Such a method is a generator: it yields what it wants done by the
// ranks, one step after another, and is resumed when that has been done. It runs on a thread of the
// caller, by requests (collective/requests.h), so that whoever moves the call needs no GIL.
//
// It returns None; or an exception, which all ranks must have come to: they refuse the call with it
// and go on. What it raises ends the call as any failure of one rank does.

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/caller.h"
#include "methods/residuals.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

/// A bucket as Python sees it, while its call is under way.
struct PythonBucket {
  Ranks& ranks;
  Bucket bucket;
};

/// What a generator yields. It is made by Python, and lives until the call has ended.
class Step {
 public:
  virtual ~Step() = default;
  virtual Task<> run(Ranks& ranks) = 0;
};

class AllreduceStep final : public Step {
 public:
  AllreduceStep(const PythonBucket& bucket, const std::vector<py::array>& inputs,
                std::vector<py::array> outputs, DType dtype, py::handle op, py::handle prescale,
                py::handle postscale)
      : kept_(py::make_tuple(inputs, outputs)),
        reduction_(Reducing(bucket.ranks.set, op, dtype, prescale, postscale).reduction) {
    for (std::size_t i = 0; i < inputs.size(); ++i)
      pieces_.push_back({input_of(inputs[i]), output_of(outputs.at(i))});
  }
  Task<> run(Ranks& ranks) override { return ranks.allreduce(pieces_, reduction_); }

 private:
  py::object kept_;
  std::vector<Piece> pieces_;
  Reduction reduction_;
};

class AllgatherStep final : public Step {
 public:
  explicit AllgatherStep(py::array bytes) : mine_(std::move(bytes)), input_(input_of(mine_)) {}
  Task<> run(Ranks& ranks) override {
    auto& route = ranks.routes.choose(Collective::allgather, std::string_view());
    const Contribution mine{input_, input_.bytes, 1};
    gathered_ = co_await route.allgather(ranks.operation, mine, std::string_view());
  }
  py::array data() const { return array_of(gathered_.data); }
  const std::vector<std::size_t>& rows() const { return gathered_.rows; }

 private:
  py::array mine_;
  ConstBuffer input_;
  Gathered gathered_;
};

class KnowLinkStep final : public Step {
 public:
  Task<> run(Ranks& ranks) override {
    co_await know_link(ranks.lane(), ranks.operation, std::numeric_limits<std::size_t>::max());
    link = ranks.lane().plans().link();
  }
  Link link;
};

/// By a codec, or exactly.
class ReduceStep final : public Step {
 public:
  ReduceStep(const PythonBucket& bucket, std::shared_ptr<Codec> codec,
             std::optional<py::array> residual, std::uint64_t step)
      : bucket_(bucket.bucket),
        codec_(std::move(codec)),
        residual_(std::move(residual)),
        step_(step) {
    if (!residual_) return;
    const auto left = output_of(*residual_);
    left_ = {reinterpret_cast<float*>(left.data), left.bytes / sizeof(float)};
    if (left_.size() != bucket_.elements())
      throw ArgumentError("the residual is not that of this bucket");
  }
  Task<> run(Ranks& ranks) override {
    if (!codec_) return ranks.allreduce(bucket_.pieces(), bucket_.reduction);
    return codec_->reduce(ranks, bucket_, left_, step_);
  }

 private:
  const Bucket bucket_;
  const std::shared_ptr<Codec> codec_;
  std::optional<py::array> residual_;
  const std::uint64_t step_;
  std::span<float> left_;
};

/// An array over memory of a call; `owner` is what keeps it from being copied.
py::array array_over(const float* data, const std::vector<std::int64_t>& shape, py::handle owner) {
  return py::array(py::dtype::of<float>(), shape, data, owner);
}

/// A generator and what it has yielded.
class Conversation {
 public:
  Conversation(std::shared_ptr<PyObject> method, Ranks& ranks, Bucket bucket,
               std::span<float> residual, std::uint64_t step)
      : method_(std::move(method)),
        bucket_{ranks, std::move(bucket)},
        residual_(residual),
        number_(step) {}

  /// With the GIL. Afterwards there is a next step, or none.
  void resume() try {
    next = nullptr;
    if (!generator_) generator_ = held(begin());
    PyObject* result = nullptr;
    const auto state = PyIter_Send(generator_.get(), Py_None, &result);
    if (state == PYGEN_ERROR) throw py::error_already_set();
    const auto given = py::reinterpret_steal<py::object>(result);
    if (state == PYGEN_NEXT) {
      next = given.cast<Step*>();
      yielded_ = held(given);
    } else if (!given.is_none()) {
      refused = std::make_exception_ptr(PythonError(given));
    }
  } catch (const py::error_already_set& error) {
    throw PythonError(error);
  }

  Step* next = nullptr;
  std::exception_ptr refused;

 private:
  py::object begin() {
    const auto method = py::reinterpret_borrow<py::object>(method_.get())();
    const auto bucket = py::cast(&bucket_, py::return_value_policy::reference);
    py::object residual = py::none();
    if (!residual_.empty())
      residual =
          array_over(residual_.data(), {static_cast<std::int64_t>(residual_.size())}, bucket);
    return method.attr("_reduce")(bucket, residual, number_);
  }

  std::shared_ptr<PyObject> method_, generator_, yielded_;
  PythonBucket bucket_;
  const std::span<float> residual_;
  const std::uint64_t number_;
};

/// Name and elements of each array.
py::tuple parts_of(const Parameters& parameters) {
  py::tuple parts(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i)
    parts[i] = py::make_tuple(to_python(parameters[i]->name), parameters[i]->elements);
  return parts;
}

class PythonMethod final : public Codec {
 public:
  /// `method`: a weak reference. What it refers to has `_reduce(bucket, residual, step)`, the
  /// generator; and `_feeds_back(communicator, buckets)` and `_position(communicator, buckets)`,
  /// which are asked with the parts of each bucket. `residuals`: those that it keeps itself.
  PythonMethod(py::object method, std::shared_ptr<Residuals> residuals)
      : Codec(true), method_(held(std::move(method))), residuals_(std::move(residuals)) {}

  Held enter(const Communicator&, std::span<const Parameters> buckets) override {
    Held all{held(referent())};
    if (residuals_) all.push_back(residuals_->use(buckets));
    return all;
  }
  bool feeds_back(const Communicator& set, std::span<const Parameters> buckets) const override {
    return ask("_feeds_back", set, buckets).cast<bool>();
  }
  std::string position(const Communicator& set,
                       std::span<const Parameters> buckets) const override {
    return ask("_position", set, buckets).cast<std::string>();
  }
  using Codec::reduce;
  Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                std::uint64_t step) override {
    const auto talk = std::make_shared<Conversation>(method_, ranks, bucket, residual, step);
    ranks.operation.keep(talk);
    auto& requests = ranks.lane().control().requests();
    while (true) {
      const auto resumed = requests.ask([talk] { talk->resume(); });
      co_await resumed;
      if (!talk->next) break;
      co_await talk->next->run(ranks);
    }
    if (talk->refused) throw Refused(talk->refused);
  }

 private:
  py::object referent() const { return py::reinterpret_borrow<py::object>(method_.get())(); }
  py::object ask(const char* what, const Communicator& set,
                 std::span<const Parameters> buckets) const {
    py::list parts;
    for (const auto& bucket : buckets) parts.append(parts_of(bucket));
    return referent().attr(what)(py::cast(&set, py::return_value_policy::reference), parts);
  }

  const std::shared_ptr<PyObject> method_;
  const std::shared_ptr<Residuals> residuals_;
};

py::list arrays_of(const py::object& self, bool outputs) {
  py::list arrays;
  for (const auto& [parameter, input, output] : self.cast<const PythonBucket&>().bucket.arrays) {
    auto array = array_over(outputs ? output.data() : input.data(), parameter->shape, self);
    if (!outputs)
      py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    arrays.append(array);
  }
  return arrays;
}

/// For each array floats, or None.
std::vector<std::vector<float>> added_from(const py::object& list) {
  std::vector<std::vector<float>> added;
  if (list.is_none()) return added;
  for (const auto& each : list) {
    added.emplace_back();
    if (each.is_none()) continue;
    const auto more = each.cast<py::array_t<float, py::array::c_style | py::array::forcecast>>();
    added.back().assign(more.data(), more.data() + more.size());
  }
  return added;
}

py::list added_of(const std::vector<std::vector<float>>& added) {
  py::list list;
  for (const auto& each : added) {
    if (each.empty())
      list.append(py::none());
    else
      list.append(py::array_t<float>(static_cast<py::ssize_t>(each.size()), each.data()));
  }
  return list;
}

void bind_bucket(py::module_& module) {
  py::class_<PythonBucket>(module, "Bucket", "Arrays of float32 that travel together.")
      .def_property_readonly("communicator",
                             [](const PythonBucket& self) {
                               return py::cast(&self.ranks.set, py::return_value_policy::reference);
                             })
      .def_property_readonly(
          "parts",
          [](const PythonBucket& self) {
            Parameters parameters;
            for (const auto& array : self.bucket.arrays) parameters.push_back(array.parameter);
            return parts_of(parameters);
          },
          "Name and elements of each array.")
      .def_property_readonly("inputs", [](py::object self) { return arrays_of(self, false); })
      .def_property_readonly("outputs", [](py::object self) { return arrays_of(self, true); })
      .def_property_readonly("averages",
                             [](const PythonBucket& self) { return self.bucket.averages; })
      .def_property_readonly(
          "factors",
          [](const PythonBucket& self) {
            const auto& reduction = self.bucket.reduction;
            return std::make_pair(reduction.prescale, reduction.postscale);
          },
          "Before and after the reduction.")
      .def(
          "scaled",
          [](const PythonBucket& self, const py::object& added) {
            return PythonBucket{self.ranks, scaled(self.ranks, self.bucket, added_from(added))};
          },
          "added"_a = py::none(),
          "The same with the factor before applied, and something added to each array or None.")
      .def(
          "residual",
          [](const PythonBucket& self, Residuals& residuals, bool per_rank) {
            const auto found = residuals.of(self.ranks, self.bucket, per_rank);
            using Owner = std::shared_ptr<Vector>;
            const py::capsule owner(new Owner(found.vector),
                                    [](void* vector) { delete static_cast<Owner*>(vector); });
            const auto count = static_cast<std::int64_t>(found.values.size());
            return py::make_tuple(array_over(found.values.data(), {count}, owner),
                                  added_of(found.added));
          },
          "residuals"_a, "per_rank"_a)
      .def(
          "taken",
          [](const PythonBucket& self, Residuals& residuals) {
            return added_of(residuals.taken(self.bucket));
          },
          "residuals"_a);
}

}  // namespace

void bind_python_methods(py::module_& module) {
  bind_bucket(module);
  py::class_<Step>(module, "Step", "What a method written in Python wants done.");
  py::class_<AllreduceStep, Step>(module, "Allreduce", "Of arrays of one dtype, exactly.")
      .def(py::init<const PythonBucket&, const std::vector<py::array>&, std::vector<py::array>,
                    DType, py::handle, py::handle, py::handle>(),
           "bucket"_a, "inputs"_a, "outputs"_a, "dtype"_a, "op"_a, "prescale"_a = 1.0,
           "postscale"_a = 1.0);
  py::class_<AllgatherStep, Step>(module, "Allgather", "Of bytes, as many as each rank has.")
      .def(py::init<py::array>(), "bytes"_a)
      .def_property_readonly("data", &AllgatherStep::data)
      .def_property_readonly("rows", &AllgatherStep::rows);
  py::class_<KnowLinkStep, Step>(module, "KnowLink", "Measure the link, unless it is known.")
      .def(py::init<>())
      .def_readonly("link", &KnowLinkStep::link);
  py::class_<ReduceStep, Step>(module, "Reduce", "Of a bucket, by a codec or exactly.")
      .def(py::init<const PythonBucket&, std::shared_ptr<Codec>, std::optional<py::array>,
                    std::uint64_t>(),
           "bucket"_a, "codec"_a = py::none(), "residual"_a = py::none(), "step"_a = 0);
  py::class_<PythonMethod, Codec, std::shared_ptr<PythonMethod>>(module, "PythonMethod",
                                                                 "A method written in Python.")
      .def(py::init<py::object, std::shared_ptr<Residuals>>(), "method"_a,
           "residuals"_a = py::none());
}

}  // namespace ronde
