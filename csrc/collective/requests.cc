#include "collective/requests.h"

#include <exception>
#include <utility>

namespace ronde {

class Requests::Request final : public Work {
 public:
  explicit Request(std::function<void()> function) : function_(std::move(function)) {}

  Progress progress() override {
    if (state_.load(std::memory_order_acquire) != State::done) return Progress::idle;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return Progress::done;
  }

  void abandon() override { enter(State::withdrawn); }

  void run() {
    if (!enter(State::running)) return;
    try {
      function_();
    } catch (...) {
      error_ = std::current_exception();
    }
    function_ = nullptr;
    state_.store(State::done, std::memory_order_release);
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
  while (const auto request = next()) request->run();
}

}  // namespace ronde
