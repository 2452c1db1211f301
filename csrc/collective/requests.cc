#include "collective/requests.h"

#include <exception>
#include <utility>

namespace ronde {
namespace {

thread_local bool runs = false;

}  // namespace

class Requests::Request final : public Work {
 public:
  explicit Request(std::function<void()> function) : function_(std::move(function)) {}

  Progress progress() override {
    if (state_.load(std::memory_order_acquire) != State::done) return Progress::idle;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return Progress::done;
  }

  /// What the function uses may go then, so it has ended. (Whoever abandons has no GIL, and a
  /// function moves no calls.)
  void abandon() override {
    enter(State::withdrawn);
    state_.wait(State::running, std::memory_order_acquire);
  }

  void run() {
    if (!enter(State::running)) return;
    try {
      function_();
    } catch (...) {
      error_ = std::current_exception();
    }
    function_ = nullptr;
    state_.store(State::done, std::memory_order_release);
    state_.notify_all();
  }

 private:
  enum class State { waiting, running, done, withdrawn };

  bool enter(State state) {
    auto waiting = State::waiting;
    return state_.compare_exchange_strong(waiting, state);
  }

  std::function<void()> function_;
  std::exception_ptr error_;
  std::atomic<State> state_ = State::waiting;
};

std::shared_ptr<Work> Requests::ask(std::function<void()> function) {
  auto request = std::make_shared<Request>(std::move(function));
  const std::lock_guard lock(mutex_);
  queue_.push_back(request);
  waiting_ = queue_.size();
  return request;
}

std::shared_ptr<Requests::Request> Requests::next() {
  const std::lock_guard lock(mutex_);
  if (queue_.empty()) return nullptr;
  auto request = std::move(queue_.front());
  queue_.pop_front();
  waiting_ = queue_.size();
  return request;
}

void Requests::run() {
  const bool before = std::exchange(runs, true);
  while (const auto request = next()) request->run();
  runs = before;
}

bool Requests::runs_here() { return runs; }

}  // namespace ronde
