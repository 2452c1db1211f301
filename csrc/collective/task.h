// A collective under way, in words that read as if it blocked: behind `co_await work` the work is
// done.
//
//   Task     a coroutine that is a Work: progress() looks at what the task waits for and, once that
//            is done, resumes it
//   Frame    what the promises of all tasks have in common. The frame that no other awaits is the
//            root; it knows the innermost frame, which waits, and what for
//   Pending  the `work` of `co_await work`. However the wait ends before the work is done (an error
//            of the work, an interruption, the end of the task), the work is abandoned and kept, as
//            messages of it may be under way
//
// Whoever awaits a task runs it as a call. If it ends there, nobody has been suspended; else the
// loop of the root resumes its caller once it has ended. So the stack is as deep as the nesting,
// and nothing depends on how the compiler transfers control.
//
// Rules for tasks (g++ 12 miscompiles what breaks the first):
//   - `co_await` stands alone: `co_await x;`, `auto y = co_await x;` or `co_return co_await x;`.
//   Here
//     x is a name, or one call with plain arguments.
//   - A Task that is awaited as a shared_ptr<Work> hides its error: ask it for its result().
//   - A parameter by reference outlives the task; whoever makes the task sees to it.
//   - Memory that a message may touch belongs to the work or to the Operation, never to a frame.
//   - No mutex is held across a `co_await`: another thread may resume.
#pragma once

#include <chrono>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "collective/frame_pool.h"
#include "collective/work.h"
#include "core/keep.h"

namespace ronde {

class Pending {
 public:
  explicit Pending(std::shared_ptr<Work> work) : work_(std::move(work)) {}
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  ~Pending() {
    if (done_) return;
    work_->abandon();
    keep_until_exit(std::move(work_));
  }

  bool await_ready() { return poll() == Progress::done; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> frame) noexcept {
    frame.promise().wait_for(*this);
  }
  void await_resume() {
    if (error_) std::rethrow_exception(error_);
  }

  Progress poll() {
    const auto progress = work_->progress();
    done_ = progress == Progress::done;
    return progress;
  }
  void interrupt(std::exception_ptr error) { error_ = std::move(error); }
  Work& work() { return *work_; }

 private:
  std::shared_ptr<Work> work_;
  bool done_ = false;
  std::exception_ptr error_;
};

template <class T = void>
class Task;

class Frame {
 public:
  static void* operator new(std::size_t bytes) { return FramePool::take(bytes); }
  static void operator delete(void* frame, std::size_t bytes) { FramePool::give(frame, bytes); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  std::suspend_always final_suspend() noexcept { return {}; }
  void unhandled_exception() { error_ = std::current_exception(); }

  Pending await_transform(std::shared_ptr<Work> work) { return Pending(std::move(work)); }
  template <class T>
  auto await_transform(Task<T>&& task) {
    return typename Task<T>::Awaited(std::move(task), *this);
  }

  void wait_for(Pending& pending) noexcept {
    root_->innermost_ = this;
    root_->pending_ = &pending;
  }

 private:
  template <class T>
  friend class Task;
  friend class RootTask;

  std::coroutine_handle<> self_;
  Frame* root_ = this;
  Frame* caller_ = nullptr;
  std::exception_ptr error_;
  Frame* innermost_ = this;     // of a root
  Pending* pending_ = nullptr;  // of a root: what it waits for
};

/// What does not depend on the result.
class RootTask : public Work {
 public:
  RootTask(const RootTask&) = delete;
  RootTask& operator=(const RootTask&) = delete;
  ~RootTask() override {
    if (frame_) frame_->self_.destroy();
  }

  /// Done also where the task has thrown: result() says so. Never throws.
  Progress progress() final {
    auto& pending = frame_->pending_;
    try {
      if (pending) {
        const auto progress = pending->poll();
        if (progress != Progress::done) return progress;
      }
    } catch (...) {
      pending->interrupt(std::current_exception());
    }
    return resume();
  }

  /// Throws `error` where the task waits: a deadline, a signal, the failure of another rank.
  Progress interrupt(std::exception_ptr error) {
    if (!frame_->pending_ && progress() == Progress::done) return Progress::done;
    frame_->pending_->interrupt(std::move(error));
    return resume();
  }

  // While it waits.
  void abandon() final { awaited().abandon(); }
  int peer() const final { return awaited().peer(); }
  Patience patience() const final { return awaited().patience(); }
  void sleep(std::chrono::microseconds time) final { awaited().sleep(time); }

 protected:
  explicit RootTask(Frame& frame) : frame_(&frame) {}
  RootTask(RootTask&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}

  Frame* frame_;

 private:
  Work& awaited() const { return frame_->pending_->work(); }

  Progress resume() {
    frame_->pending_ = nullptr;
    auto*& innermost = frame_->innermost_;
    while (innermost) {
      innermost->self_.resume();
      if (frame_->pending_) return Progress::moved;
      innermost = innermost->caller_;
    }
    return Progress::done;
  }
};

template <class T>
struct Promise : Frame {
  Task<T> get_return_object();
  void return_value(T value) { value_.emplace(std::move(value)); }
  std::optional<T> value_;
};

template <>
struct Promise<void> : Frame {
  Task<void> get_return_object();
  void return_void() {}
};

template <class T>
class [[nodiscard]] Task final : public RootTask {
 public:
  using promise_type = Promise<T>;

  Task(Task&&) noexcept = default;

  /// Once done, once: the result, or what the task has thrown.
  T result() {
    if (frame_->error_) std::rethrow_exception(frame_->error_);
    if constexpr (!std::is_void_v<T>) return std::move(*promise().value_);
  }

  /// The `task` of `co_await task`.
  class Awaited {
   public:
    Awaited(Task task, Frame& caller) : task_(std::move(task)) {
      task_.frame_->caller_ = &caller;
      task_.frame_->root_ = caller.root_;
    }
    bool await_ready() {
      task_.frame_->self_.resume();
      return task_.frame_->self_.done();
    }
    void await_suspend(std::coroutine_handle<>) noexcept {}
    T await_resume() { return task_.result(); }

   private:
    Task task_;
  };

 private:
  friend promise_type;
  explicit Task(promise_type& promise) : RootTask(promise) {
    frame_->self_ = std::coroutine_handle<promise_type>::from_promise(promise);
  }
  promise_type& promise() { return static_cast<promise_type&>(*frame_); }
};

template <class T>
Task<T> Promise<T>::get_return_object() {
  return Task<T>(*this);
}
inline Task<void> Promise<void>::get_return_object() { return Task<void>(*this); }

}  // namespace ronde
