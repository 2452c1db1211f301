// An asynchronous call of this rank, from its submission to its end.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collective/call.h"
#include "collective/outline.h"
#include "collective/routes.h"
#include "core/keep.h"
#include "trace/recorder.h"

namespace ronde {

/// A part of a vector that may be reduced together with others.
struct Fusable {
  Piece piece;
  Reduction reduction;
};

class Submission {
 public:
  struct What {
    Call call;
    std::function<Task<>(Routes&, Operation&)> begin;  // makes the task
    std::optional<Fusable> fusable;                    // the same, where it can be fused
    bool scheduled = false;                            // an algorithm for schedules is named
    std::string site{};                                // "train.py:42", where it is submitted
    /// What it does, for ranks that have joined, where that cannot be recorded as it begins.
    std::function<std::vector<Outline>()> outlines{};
  };

  /// `owned`: the memory that it refers to.
  Submission(What what, std::shared_ptr<const void> owned)
      : what_(std::move(what)),
        key_(what_.call.kind + (what_.call.name.empty() ? "#" : "/") + what_.call.name),
        fingerprint_(what_.call.fingerprint()),
        owned_(std::move(owned)) {}
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

  /// By which the ranks know it. Calls without a name have that of their kind in common, and are
  /// taken in the order of their submission.
  const std::string& key() const { return key_; }
  const Call& call() const { return what_.call; }
  std::uint64_t fingerprint() const { return fingerprint_; }
  const std::string& site() const { return what_.site; }
  const std::optional<Fusable>& fusable() const { return what_.fusable; }
  /// What it moves, on all ranks alike; more than anything where that depends on the ranks.
  std::size_t bytes() const {
    return what_.fusable ? what_.fusable->piece.input.bytes
                         : std::numeric_limits<std::size_t>::max();
  }
  /// Whether it goes by schedules even inside a machine.
  bool scheduled() const { return what_.scheduled; }
  Task<> task(Routes& routes, Operation& operation) const { return what_.begin(routes, operation); }
  const std::function<std::vector<Outline>()>& outlines() const { return what_.outlines; }

  /// It is not pending any more.
  void begin() { begun_ = true; }
  bool begun() const { return begun_; }

  Entry entry;                 // in the flight record
  std::int64_t submitted = 0;  // in exact_time(), for a timeline

  /// Of ranks that have joined, once the ranks have agreed to run it.
  const Joined& joined() const { return joined_; }
  void set_joined(const Joined& joined) { joined_ = joined; }

  /// Any thread may ask.
  bool done() const { return done_.load(std::memory_order_acquire); }
  /// Once done: throws what has ended the call, if anything has.
  void result() const {
    if (error_) std::rethrow_exception(error_);
  }

  /// Ends it, once; `touched`: messages may still touch what it owns.
  void finish(std::exception_ptr error = nullptr, bool touched = false) {
    if (touched) keep_until_exit(owned_);
    owned_.reset();
    what_.begin = nullptr;
    what_.outlines = nullptr;
    entry.end(error ? CallState::failed : CallState::done);
    error_ = std::move(error);
    done_.store(true, std::memory_order_release);
  }

 private:
  What what_;
  const std::string key_;
  const std::uint64_t fingerprint_;
  std::shared_ptr<const void> owned_;
  Joined joined_;
  std::exception_ptr error_;
  bool begun_ = false;
  std::atomic<bool> done_ = false;
};

}  // namespace ronde
