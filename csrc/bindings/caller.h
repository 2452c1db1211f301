// How a collective is called from Python: to its end, or by submitting it to an engine. Whoever
// makes the call (operations.cc) says what begins it and what makes its result, and need not know
// which.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/held.h"
#include "collective/communicator.h"
#include "engine/engine.h"

namespace ronde {

/// An asynchronous call, or a group of them, as Python sees it.
class PendingCall {
 public:
  using Finish = std::function<pybind11::object()>;

  /// `finish` gives the result, once, when all submissions have ended.
  PendingCall(std::shared_ptr<Engine> engine, std::vector<std::shared_ptr<Submission>> submissions,
              Finish finish)
      : engine_(std::move(engine)),
        submissions_(std::move(submissions)),
        finish_(std::move(finish)) {}
  /// Its result is a list of the results of these.
  explicit PendingCall(const std::vector<std::shared_ptr<PendingCall>>& calls);

  /// Whether it has ended.
  bool done() const;
  /// The same; moves what is under way.
  bool poll();
  /// The result; throws what has ended the call, or TimeoutError if it has not ended by then.
  pybind11::object wait(std::optional<double> seconds);
  /// Once done.
  pybind11::object result();

 private:
  const std::shared_ptr<Engine> engine_;
  std::vector<std::shared_ptr<Submission>> submissions_;
  Finish finish_;
  pybind11::object result_;
};

class Caller {
 public:
  explicit Caller(Communicator& communicator, Engine* engine = nullptr)
      : set(communicator), engine_(engine) {}

  Communicator& set;

  /// `begin(route, operation)` makes the task, and owns what that refers to, but for the memory of
  /// the `arrays`. `finish()` gives the result, once, when the task has ended. `fusable`: the same
  /// as `begin`, where it can be done together with other calls. Returns the result; or the
  /// call that is pending.
  template <class Begin, class Finish>
  pybind11::object operator()(Call& call, Collective collective, std::string_view algorithm,
                              std::initializer_list<pybind11::handle> arrays, const Begin& begin,
                              const Finish& finish,
                              const std::optional<Fusable>& fusable = {}) const {
    if (engine_) {
      set.require_algorithm(collective, algorithm);
      const auto begin_by = [begin, collective, named = std::string(algorithm)](
                                Routes& routes, Operation& operation) {
        return begin(routes.choose(collective, named), operation);
      };
      const bool scheduled = set.names_algorithm(collective, algorithm);
      return submit({std::move(call), begin_by, fusable, scheduled}, arrays, finish);
    }
    run_collective(set, arrays, [&] { set.run(call, collective, algorithm, begin); });
    return finish();
  }

  /// The same of a call that takes routes by itself: `begin(routes, operation)`. `outlines()`: what
  /// it does while other ranks have joined.
  template <class Begin, class Outlines, class Finish>
  pybind11::object operator()(const Call& call, std::initializer_list<pybind11::handle> arrays,
                              const Begin& begin, const Outlines& outlines,
                              const Finish& finish) const {
    if (engine_) {
      const bool scheduled = set.names_algorithm(Collective::allreduce, {});
      return submit({.call = call,
                     .begin = begin,
                     .fusable = {},
                     .scheduled = scheduled,
                     .outlines = outlines},
                    arrays, finish);
    }
    run_collective(set, arrays, [&] { set.run(call, begin, outlines); });
    return finish();
  }

 private:
  pybind11::object submit(Submission::What what, std::initializer_list<pybind11::handle> arrays,
                          PendingCall::Finish finish) const;

  Engine* const engine_;
};

}  // namespace ronde
