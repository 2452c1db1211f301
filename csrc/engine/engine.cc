#include "engine/engine.h"

#include <exception>
#include <utility>

#include "collective/wait.h"
#include "core/error.h"
#include "core/keep.h"

namespace ronde {
Engine::Engine(std::shared_ptr<Control> control, std::size_t fusion_bytes, bool spin)
    : control_(std::move(control)), fusion_bytes_(fusion_bytes), spin_(spin) {
  control_->set_meanwhile([this] { return meanwhile(); });
}

Engine::~Engine() { control_->set_meanwhile({}); }

void Engine::submit(Communicator& set, std::shared_ptr<Submission> submission) {
  set.require_usable();
  const std::lock_guard lock(mutex_);
  queue(set).submit(std::move(submission));
  progress(false);
}

Queue& Engine::queue(Communicator& set) {
  auto& queue = queues_[&set];
  if (!queue) queue = std::make_unique<Queue>(set.lane(), fusion_bytes_);
  return *queue;
}

void Engine::leave(const std::vector<Communicator*>& sets) {
  const std::lock_guard lock(mutex_);
  for (auto* set : sets) queue(*set);
  leaves_ = true;
  busy_ = queues_.size();
}

bool Engine::busy(const Communicator& set) {
  const std::lock_guard lock(mutex_);
  const auto found = queues_.find(&set);
  return found != queues_.end() && !found->second->idle();
}

void Engine::drain(Communicator& set) {
  const std::lock_guard lock(mutex_);
  queue(set).drain();
}

bool Engine::poll(const Submission& submission) {
  if (submission.done()) return true;
  const std::lock_guard lock(mutex_);
  progress(true);
  return submission.done();
}

bool Engine::wait(const Submission& submission, std::optional<double> seconds) {
  const auto start = std::chrono::steady_clock::now();
  Several several;
  Wait wait(spin_);
  while (!submission.done()) {
    bool moved = false;
    {
      const std::lock_guard lock(mutex_);
      if (submission.done()) return true;
      moved = progress(true);
    }
    if (moved) {
      wait.moved();
      continue;
    }
    wait.pause(several);
    if (wait.due()) control_->hooks().check_signals();
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
    if (seconds && waited.count() > *seconds) return submission.done();
  }
  return true;
}

bool Engine::close(const Communicator& set, const std::string& why) {
  const std::lock_guard lock(mutex_);
  const auto found = queues_.find(&set);
  if (found == queues_.end()) return true;
  auto& queue = *found->second;
  queue.fail(std::make_exception_ptr(Error(why)));
  const bool clean = queue.idle() && !queue.gave_up();
  if (!clean) keep_until_exit(std::shared_ptr<Queue>(std::move(found->second)));
  queues_.erase(found);
  return clean;
}

/// Under the lock.
bool Engine::progress(bool waits) {
  bool moved = false;
  std::size_t busy = 0;
  for (auto& [set, queue] : queues_) {
    moved |= queue->progress(waits);
    busy += !queue->idle() || (leaves_ && !queue->leave());
  }
  busy_ = busy;
  return moved;
}

/// For who waits in a blocking call. Returns whether something is under way.
bool Engine::meanwhile() {
  if (busy_ == 0) return false;
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (lock.owns_lock()) progress(true);
  return true;
}

}  // namespace ronde
