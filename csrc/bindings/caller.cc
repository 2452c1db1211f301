#include "bindings/caller.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bindings/call_site.h"
#include "bindings/gil.h"
#include "core/error.h"

namespace py = pybind11;

namespace ronde {

PendingCall::PendingCall(const std::vector<std::shared_ptr<PendingCall>>& calls)
    : engine_(calls.empty() ? nullptr : calls[0]->engine_) {
  for (const auto& call : calls)
    submissions_.insert(submissions_.end(), call->submissions_.begin(), call->submissions_.end());
  finish_ = [calls] {
    py::list results;
    for (const auto& call : calls) results.append(call->result());
    return results;
  };
}

bool PendingCall::done() const {
  return std::all_of(submissions_.begin(), submissions_.end(),
                     [](const auto& each) { return each->done(); });
}

bool PendingCall::poll() {
  {
    WithoutGil release;
    for (const auto& each : submissions_) {
      if (!engine_->poll(*each)) return false;
    }
  }
  give_back_objects();
  return true;
}

py::object PendingCall::wait(std::optional<double> seconds) {
  if (!done()) {
    const auto start = std::chrono::steady_clock::now();
    bool ended = true;
    {
      WithoutGil release;
      for (const auto& each : submissions_) {
        const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
        auto left = seconds;
        if (left) *left = std::max(*left - waited.count(), 0.0);
        ended = ended && engine_->wait(*each, left);
      }
    }
    if (!ended) {
      give_back_objects();
      const auto text = "the call has not ended within " +
                        std::string(py::str(py::float_(*seconds))) + " s; it goes on";
      PyErr_SetString(PyExc_TimeoutError, text.c_str());
      throw py::error_already_set();
    }
  }
  give_back_objects();
  return result();
}

py::object PendingCall::result() {
  if (!done()) throw Error("the call has not ended yet: wait() waits for its result");
  for (const auto& each : submissions_) each->result();
  while (!result_) {
    // To make an array may let another thread come here, which then waits for it.
    if (!finish_) {
      WithoutGil release;
      std::this_thread::yield();
      continue;
    }
    auto finish = std::exchange(finish_, nullptr);
    try {
      result_ = finish();
    } catch (...) {
      finish_ = std::move(finish);
      throw;
    }
  }
  return result_;
}

py::object Caller::submit(Submission::What what, std::initializer_list<py::handle> arrays,
                          PendingCall::Finish finish) const {
  give_back_objects();
  what.site = call_site();
  py::list kept;
  for (const auto& array : arrays) kept.append(array);
  std::vector<std::shared_ptr<Submission>> submissions{
      std::make_shared<Submission>(std::move(what), held(std::move(kept)))};
  {
    WithoutGil release;
    engine_->submit(set, submissions[0]);
  }
  return py::cast(std::make_shared<PendingCall>(engine_->shared_from_this(), std::move(submissions),
                                                std::move(finish)));
}

}  // namespace ronde
