#include "engine/engine.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <string>
#include <utility>

#include "collective/wait.h"
#include "core/error.h"
#include "core/keep.h"

namespace ronde {
namespace {

using namespace std::chrono_literals;

// After a submission, for whoever may wait for the call next.
constexpr std::chrono::microseconds kLeft = 200us;
constexpr std::chrono::microseconds kFirstNap = 20us, kNap = 200us;
// Where ranks outnumber cores; or somebody else moves what is under way, or may soon.
constexpr std::chrono::microseconds kLongNap = 1000us;
// Where both is so: each look takes the time of several short calls from a rank on the same core.
constexpr std::chrono::microseconds kLongestNap = 4000us;
// After that time without a submission the worker sleeps until there is something to move.
constexpr auto kRecent = 2ms;

bool pin(pthread_t thread, int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (core < CPU_SETSIZE) CPU_SET(core, &cores);
  return pthread_setaffinity_np(thread, sizeof cores, &cores) == 0;
}

/// Threads that begin meanwhile get no signals.
class WithoutSignals {
 public:
  WithoutSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~WithoutSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  WithoutSignals(const WithoutSignals&) = delete;
  WithoutSignals& operator=(const WithoutSignals&) = delete;

 private:
  sigset_t before_;
};

/// Counts one more while it lives.
class Counted {
 public:
  explicit Counted(std::atomic<int>& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<int>& count_;
};

}  // namespace

/// The lock. Under it Python may be called, by warnings say, which must not come back for it.
class Engine::Holding {
 public:
  explicit Holding(Engine& engine) : engine_(engine) {
    engine.require_mine();
    if (engine.holds())
      throw Error(
          "an asynchronous call was made or waited for, perhaps by a compressor or by a handler of "
          "signals or warnings, while the same thread moves such calls");
    engine.mutex_.lock();
    take();
  }
  /// Unless a thread has it.
  Holding(Engine& engine, std::try_to_lock_t) : engine_(engine) {
    if (!engine.holds() && engine.mutex_.try_lock()) take();
  }
  ~Holding() {
    if (!holds_) return;
    engine_.holder_.store({}, std::memory_order_relaxed);
    engine_.mutex_.unlock();
  }
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;

  explicit operator bool() const { return holds_; }

 private:
  void take() {
    holds_ = true;
    engine_.holder_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  }

  Engine& engine_;
  bool holds_ = false;
};

Engine::Engine(std::shared_ptr<Control> control, std::size_t fusion_bytes, bool spin, bool worker,
               std::optional<int> core)
    : control_(std::move(control)), fusion_bytes_(fusion_bytes), spin_(spin) {
  if (worker) {
    const WithoutSignals signals_are_for_the_program;
    worker_ = std::make_unique<std::thread>([this] { work(); });
  }
  control_->set_meanwhile([this] { return meanwhile(); });
  if (worker && core && !pin(worker_->native_handle(), *core))
    control_->hooks().warn("RONDE_ENGINE_CORE: this process may not use core " +
                           std::to_string(*core) + ", so its worker runs anywhere");
}

Engine::~Engine() {
  stop();
  control_->set_meanwhile({});
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  if (!worker_) return;
  wakes_.notify_all();
  worker_->join();
  worker_.reset();
}

void Engine::forget() {
  forgotten_ = true;
  control_->set_meanwhile({});
  // Never destroyed: the lock may be that of a thread which the child does not have, the worker is
  // not there, and what is under way is the parent's, in memory that both share.
  new std::shared_ptr<Engine>(shared_from_this());
}

void Engine::require_mine() const {
  if (forgotten_)
    throw Error(
        "this process was forked after ronde.init(): the asynchronous calls are its parent's");
}

bool Engine::holds() const {
  return Requests::runs_here() ||
         holder_.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

void Engine::submit(Communicator& set, std::shared_ptr<Submission> submission) {
  control_->run_requests();
  const Holding lock(*this);
  require_open(set);
  queue(set).submit(std::move(submission));
  progress(false);
  submitted_ = Clock::now();
}

/// Whether calls can begin on it.
void Engine::require_open(const Communicator& set) const {
  set.require_usable();
  set.require_open();
  if (stops_) throw Error("asynchronous calls cannot be made any more, as Ronde is shutting down");
}

Queue& Engine::queue(Communicator& set) {
  auto& queue = queues_[&set];
  if (!queue) queue = std::make_unique<Queue>(set.lane(), fusion_bytes_);
  return *queue;
}

bool Engine::poll(const Submission& submission) {
  if (submission.done()) return true;
  require_mine();
  control_->run_requests();
  // If another thread has the lock, it moves what is under way.
  if (const Holding lock{*this, std::try_to_lock}) progress(true);
  return submission.done();
}

/// Waits until `step` is done. It moves calls, under the lock.
void Engine::wait_for(FunctionRef<Progress()> step) {
  require_mine();
  Wait wait(spin_);
  while (true) {
    bool moved = control_->run_requests();
    Patience patience;
    {
      const Holding lock(*this);
      const auto progress = step();
      patience = patience_;
      if (progress == Progress::done) return;
      moved |= progress == Progress::moved;
    }
    if (!moved) {
      Several several(patience);
      wait.pause(several);
    }
    if (moved ? wait.moved() : wait.due()) control_->hooks().check_signals();
  }
}

bool Engine::wait(const Submission& submission, std::optional<double> seconds) {
  const auto start = Clock::now();
  const auto is_late = [&] {
    const std::chrono::duration<double> waited = Clock::now() - start;
    return seconds && waited.count() > *seconds;
  };
  const Counted counted(waiting_);
  if (!submission.done()) {
    wait_for([&] {
      if (submission.done()) return Progress::done;
      const bool moved = progress(true);
      if (submission.done() || is_late()) return Progress::done;
      return moved ? Progress::moved : Progress::idle;
    });
  }
  return submission.done();
}

int Engine::join(Communicator& set, Join average) {
  if (!set.settings().check)
    throw Error(
        "ronde.join cannot be used with RONDE_CHECK=0: where the ranks do not compare their calls, "
        "they do not find out that one has joined");
  const Counted counted(waiting_);
  const auto begin = [&] {
    const Holding lock(*this);
    require_open(set);
    queue(set).join(average);
    busy_ = queues_.size();
  };
  {
    const Holding lock(*this);
    require_open(set);
    queue(set).require_no_join();
  }
  try {
    return set.join(average, begin, [&] { return end_join(set); });
  } catch (...) {
    const Holding lock(*this);
    const auto found = queues_.find(&set);
    if (found != queues_.end()) found->second->end_join();
    throw;
  }
}

/// When all ranks have joined: until that is so for asynchronous calls.
std::uint64_t Engine::end_join(const Communicator& set) {
  std::uint64_t rounds = 0;
  wait_for([&] {
    const auto found = queues_.find(&set);
    if (found == queues_.end()) set.require_open();
    auto& queue = *queues_.at(&set);
    if (queue.gave_up()) set.require_usable();
    if (!queue.refused().empty()) throw Error(queue.refused());
    if (!queue.awaits_join()) {
      rounds = queue.end_join();
      return Progress::done;
    }
    return progress(true) ? Progress::moved : Progress::idle;
  });
  return rounds;
}

void Engine::leave(const std::vector<Communicator*>& sets) {
  const Holding lock(*this);
  for (auto* set : sets) queue(*set).stay();
  leaves_ = true;
  busy_ = queues_.size();
}

bool Engine::busy(const Communicator& set) {
  const Holding lock(*this);
  const auto found = queues_.find(&set);
  return found != queues_.end() && !found->second->idle();
}

bool Engine::gave_up(const Communicator& set) {
  const Holding lock(*this);
  const auto found = queues_.find(&set);
  return found != queues_.end() && found->second->gave_up();
}

void Engine::drain(Communicator& set, const std::string& why) {
  {
    const Holding lock(*this);
    queue(set).drain();
  }
  wait_for([&] {
    auto& queue = *queues_.at(&set);
    const bool moved = queue.drains() && queue.progress(true);
    if (queue.drains()) return moved ? Progress::moved : Progress::idle;
    // At once, before another thread begins something.
    queue.close(std::make_exception_ptr(Error(why)));
    return Progress::done;
  });
}

bool Engine::close(const Communicator& set, const std::string& why) {
  std::unique_ptr<Queue> queue;  // ends without the lock: it may wait for NCCL, and others go on
  const Holding lock(*this);
  const auto found = queues_.find(&set);
  if (found == queues_.end()) return true;
  queue = std::move(found->second);
  queues_.erase(found);
  queue->close(std::make_exception_ptr(Error(why)));
  return !queue->gave_up();
}

/// Under the lock.
bool Engine::progress(bool waits) {
  bool moved = false;
  std::size_t busy = 0;
  Patience patience;
  moves_ = false;
  const bool leaving = leaves_ && control_->ending();
  for (auto& [set, queue] : queues_) {
    moved |= queue->progress(waits);
    moves_ |= queue->moves();
    patience = patience.with(queue->patience());
    busy += !queue->idle() || (leaving && !queue->leave());
  }
  busy_ = busy;
  patience_ = patience;
  if (sleeps_ && moves_) wakes_.notify_one();
  return moved;
}

/// For who waits in a blocking call. Returns whether something is under way.
bool Engine::meanwhile() {
  if (busy_ == 0 && !(leaves_ && control_->ending())) return false;
  if (const Holding lock{*this, std::try_to_lock}) progress(true);
  return true;
}

/// Whether somebody else moves what is under way, or may soon.
bool Engine::left_to_others() const { return waiting_ > 0 || Clock::now() - submitted_ < kLeft; }

void Engine::work() {
  auto nap = kFirstNap;
  while (true) {
    if (sleep_while_idle()) nap = kFirstNap;
    bool left = false, moved = false;
    {
      const Holding lock(*this);
      if (stops_) return;
      left = left_to_others();
      moved = !left && progress(false);
    }
    const auto longest = left && !spin_ ? kLongestNap : left || !spin_ ? kLongNap : kNap;
    nap = moved ? kFirstNap : std::min(2 * nap, longest);
    if (moved)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(nap);
  }
}

/// Whether the worker has slept.
bool Engine::sleep_while_idle() {
  std::unique_lock lock(mutex_);
  if (stops_ || moves_ || Clock::now() - submitted_ <= kRecent) return false;
  sleeps_ = true;
  wakes_.wait(lock, [this] { return stops_ || moves_; });
  sleeps_ = false;
  return true;
}

}  // namespace ronde
