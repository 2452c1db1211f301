// Moves the asynchronous calls of all process sets.
//
// Calls move while somebody submits or polls, and above all while somebody waits, in a blocking
// call too: each thread that waits moves all that is under way. While nobody waits a worker does,
// if there is one: a thread that naps between its looks, and sleeps where nothing has been
// submitted for a while. It leaves what was just submitted to whoever may wait for it next, as
// handing a short call to a thread and back would take longer than the call. It never takes the GIL
// but for reports of trouble.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "collective/communicator.h"
#include "core/function_ref.h"
#include "engine/queue.h"

namespace ronde {

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  /// `fusion_bytes`: of the calls of a slot, at most. `worker`: several threads of this process may
  /// call MPI at once, so there is one; `core`: on which it runs, and nowhere else.
  Engine(std::shared_ptr<Control> control, std::size_t fusion_bytes, bool spin, bool worker,
         std::optional<int> core = {});
  ~Engine();

  void submit(Communicator& set, std::shared_ptr<Submission> submission);

  /// Whether it is done. Moves what is under way.
  bool poll(const Submission& submission);

  /// Until it is done, or for so many seconds; returns whether it is.
  bool wait(const Submission& submission, std::optional<double> seconds);

  /// Before this rank ends, with these sets: ranks that wait for calls that it has not submitted
  /// will find out.
  void leave(const std::vector<Communicator*>& sets);

  /// This rank has no more data (Communicator::join): for asynchronous calls as well.
  int join(Communicator& set, Join average);

  /// Whether calls are pending on a set.
  bool busy(const Communicator& set);
  /// Runs what all ranks of a set have pending, and ends the rest with this error, and what is
  /// submitted later. All ranks must call it.
  void drain(Communicator& set, const std::string& why);

  /// Whether messages of calls of a set that were given up may still be under way.
  bool gave_up(const Communicator& set);

  /// Ends the calls of a set that is closed, with this error. Returns whether no messages can be
  /// under way.
  bool close(const Communicator& set, const std::string& why);

  /// In a child that was forked: from now on all calls are refused, and nothing is moved or freed.
  void forget();

  /// Takes no further calls, and ends the worker: before the interpreter ends, as it may need the
  /// GIL.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;

  class Holding;

  void require_mine() const;
  bool holds() const;
  void require_open(const Communicator& set) const;
  Queue& queue(Communicator& set);
  std::uint64_t end_join(const Communicator& set);
  void wait_for(FunctionRef<Progress()> step);
  bool progress(bool waits);
  bool meanwhile();
  void work();
  bool sleep_while_idle();
  bool left_to_others() const;

  const std::shared_ptr<Control> control_;
  const std::size_t fusion_bytes_;
  const bool spin_;
  std::mutex mutex_;
  std::atomic<std::thread::id> holder_;  // of the lock
  bool forgotten_ = false;
  std::map<const Communicator*, std::unique_ptr<Queue>> queues_;
  std::atomic<bool> leaves_ = false;
  std::atomic<std::size_t> busy_ = 0;  // queues with something to do

  std::condition_variable wakes_;
  bool sleeps_ = false;  // the worker
  bool stops_ = false;
  std::atomic<int> waiting_ = 0;  // threads
  bool moves_ = false;            // whether there is something to move
  Patience patience_;             // with that
  Clock::time_point submitted_;
  std::unique_ptr<std::thread> worker_;
};

}  // namespace ronde
