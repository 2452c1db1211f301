// What this rank has submitted on a process set, by key.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/submission.h"

namespace ronde {

using Calls = std::vector<std::shared_ptr<Submission>>;

class Submitted {
 public:
  using Clock = std::chrono::steady_clock;

  struct Call {
    std::uint64_t number;  // in the order of submission
    std::shared_ptr<Submission> submission;
    Clock::time_point since;    // submitted
    Clock::time_point counted;  // from when on its time to be matched counts
  };

  /// The calls with one key.
  struct Key {
    std::string text;
    std::vector<Call> pending;  // the first to be submitted comes first
    int running = 0;
  };

  std::size_t count() const { return count_; }
  /// How many calls have been submitted so far.
  std::uint64_t so_far() const { return so_far_; }

  /// Throws ArgumentError if a call with that name is pending or running.
  void add(std::shared_ptr<Submission> submission);
  /// Of this rank, which has joined: others may have submitted it again before the last has ended
  /// here.
  void add_neutral(std::shared_ptr<Submission> submission);

  /// What is pending, in the order of submission.
  std::vector<Call> in_order() const;

  /// Null where nothing with that key is pending or running. Who keeps it may look at it later.
  std::shared_ptr<Key> find(const std::string& key) const;

  /// From pending to running; and the end of that.
  void begin(const Calls& calls);
  void end(const Calls& calls);

  /// Nothing is pending any more: what was.
  Calls take_all();

  /// Forgets the keys that nobody keeps and that have no calls.
  void sweep();

 private:
  Key& key_of(const Submission& submission);
  void add(Key& key, std::shared_ptr<Submission> submission);
  static bool is_unused(const std::shared_ptr<Key>& key);

  std::unordered_map<std::string, std::shared_ptr<Key>> keys_;
  std::size_t count_ = 0;
  std::uint64_t so_far_ = 0;
};

}  // namespace ronde
