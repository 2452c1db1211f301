// An asynchronous call of this rank, from its submission to its end.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "collective/call.h"
#include "collective/routes.h"
#include "core/keep.h"

namespace ronde {

/// A part of a vector that may be reduced together with others.
struct Fusable {
  Piece piece;
  Reduction reduction;
};

class Submission {
 public:
  /// Makes the task of the call.
  using Begin = std::function<Task<>(Routes&, Operation&)>;

  /// `key`: by which the ranks know it; calls without a name have one in common for each kind, and
  /// are taken in the order of their submission. `owned`: what `begin` and `fusable` refer to.
  Submission(std::string key, Call call, Begin begin, std::optional<Fusable> fusable,
             std::shared_ptr<const void> owned)
      : key_(std::move(key)),
        call_(std::move(call)),
        fingerprint_(call_.fingerprint()),
        begin_(std::move(begin)),
        fusable_(std::move(fusable)),
        owned_(std::move(owned)) {}
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

  const std::string& key() const { return key_; }
  const Call& call() const { return call_; }
  std::uint64_t fingerprint() const { return fingerprint_; }
  const std::optional<Fusable>& fusable() const { return fusable_; }
  Task<> begin(Routes& routes, Operation& operation) const { return begin_(routes, operation); }

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
    begin_ = nullptr;
    error_ = std::move(error);
    done_.store(true, std::memory_order_release);
  }

 private:
  const std::string key_;
  const Call call_;
  const std::uint64_t fingerprint_;
  Begin begin_;
  const std::optional<Fusable> fusable_;
  std::shared_ptr<const void> owned_;
  std::exception_ptr error_;
  std::atomic<bool> done_ = false;
};

}  // namespace ronde
