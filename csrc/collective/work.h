// Something under way.
//
// Every part of a collective is such a state machine: phase 0, the exchange that follows it. A
// blocking call drives one to its end (drive.cc); whoever wants several at once, or
// something else meanwhile, moves each a little at a time.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace ronde {

enum class Progress { idle, moved, done };

/// What a thread does before it sleeps, as long as nothing moves.
struct Patience {
  std::chrono::microseconds spinning{};  // where every rank has a core of its own
  int yields = 0;                        // after that, or where ranks share cores

  Patience with(const Patience& other) const {
    return {std::max(spinning, other.spinning), std::max(yields, other.yields)};
  }
};

class Work {
 public:
  virtual ~Work() = default;

  /// Starts what can start, completes what has arrived, and returns at once. Not called again after
  /// `done`. If it throws, messages may still be under way: the object must outlive them (keep.h).
  virtual Progress progress() = 0;

  /// This rank gives up: the work does not go on.
  virtual void abandon() {}

  /// The rank that it waits for, if it is a single one, else -1.
  virtual int peer() const { return -1; }

  /// Here as long as a message takes on a fast network. More would keep the processor from the
  /// network stack, and from ranks that share the core and still compute.
  virtual Patience patience() const { return {std::chrono::microseconds(20), 10}; }

  /// Sleeps until there may be progress, or for about so long. Some know when to wake up.
  virtual void sleep(std::chrono::microseconds time) { std::this_thread::sleep_for(time); }
};

}  // namespace ronde
