// What a task needs a thread of the caller for: functions that call Python, say, while the thread
// that moves the task may be one that must not.
//
// A task asks, and awaits its request. Threads of the caller run what has been asked for
// (Control::run_requests): one that drives a blocking call does so at once.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "collective/work.h"

namespace ronde {

class Requests {
 public:
  /// It is done once the function has run. What that throws is thrown to whoever awaits it.
  std::shared_ptr<Work> ask(std::function<void()> function);

  /// Whether there are any.
  bool waiting() const { return waiting_.load(std::memory_order_acquire) != 0; }

  /// Runs all that wait, on this thread.
  void run();
  /// Whether this thread does: it must move no calls, of which one may wait for that.
  static bool runs_here();

 private:
  class Request;

  std::shared_ptr<Request> next();

  std::mutex mutex_;
  std::deque<std::shared_ptr<Request>> queue_;
  std::atomic<std::size_t> waiting_ = 0;
};

}  // namespace ronde
