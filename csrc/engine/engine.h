// Moves the asynchronous calls of all process sets.
//
// It has no thread of its own. Calls move while somebody submits or polls, and above all while
// somebody waits, in a blocking call too: each thread that waits moves all that is under way.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "collective/communicator.h"
#include "engine/queue.h"

namespace ronde {

class Engine {
 public:
  /// `fusion_bytes`: of the calls of a slot, at most.
  Engine(std::shared_ptr<Control> control, std::size_t fusion_bytes, bool spin);
  ~Engine();

  void submit(Communicator& set, std::shared_ptr<Submission> submission);

  /// Whether it is done. Moves what is under way.
  bool poll(const Submission& submission);

  /// Until it is done, or for so many seconds; returns whether it is.
  bool wait(const Submission& submission, std::optional<double> seconds);

  /// Before this rank ends, with these sets: ranks that wait for calls that it has not submitted
  /// will find out.
  void leave(const std::vector<Communicator*>& sets);

  /// Whether calls are pending on a set.
  bool busy(const Communicator& set);
  /// Runs what all ranks of a set have pending; all must call it.
  void drain(Communicator& set);

  /// Ends what is pending on a set, which is going to be freed, with this error. Returns whether
  /// no messages can be under way.
  bool close(const Communicator& set, const std::string& why);

 private:
  Queue& queue(Communicator& set);
  bool progress(bool waits);
  bool meanwhile();

  const std::shared_ptr<Control> control_;
  const std::size_t fusion_bytes_;
  const bool spin_;
  std::mutex mutex_;
  std::map<const Communicator*, std::unique_ptr<Queue>> queues_;
  bool leaves_ = false;
  std::atomic<std::size_t> busy_ = 0;  // queues with something to do
};

}  // namespace ronde
