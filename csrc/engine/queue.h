// The asynchronous calls of one process set, on a lane of their own.
//
// Ranks may submit calls in any order. They meet in rounds. In a negotiation all state what they
// have pending: what is pending everywhere runs, in the order of the first rank, in slots: calls
// that can be fused, up to some bytes. The ranks remember which slot came after which. So the next
// time a rank goes into a slot as soon as it has all of it, and the round is only phase 0, in which
// the ranks find out whether they are all in the same slot. If one is not, as it waits for another
// call, they negotiate: before any data has moved.
//
// A rank goes into a negotiation when somebody waits. If nothing was pending everywhere it comes
// back when it has more to state, or after a while.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "collective/lane.h"
#include "collective/routes.h"
#include "collective/watch.h"
#include "engine/statement.h"
#include "engine/submission.h"

namespace ronde {

class Queue {
 public:
  /// `blocking`: the lane of the set's other calls.
  Queue(const Lane& blocking, std::size_t fusion_bytes);
  ~Queue();

  /// Throws ArgumentError if a call with that name is pending.
  void submit(std::shared_ptr<Submission> submission);

  /// Moves what is under way, and begins what can begin. `waits`: somebody does, for some call.
  /// Returns whether anything has moved. Never throws: what goes wrong ends calls.
  bool progress(bool waits);

  /// Whether there is something to move.
  bool moves() const { return round_ != nullptr; }
  bool idle() const { return !round_ && count_ == 0; }

  /// Negotiates from now on, whether or not anything is pending, until nothing is that all ranks
  /// have. All must call it, and make progress until then.
  void drain() { draining_ = true; }
  bool drains() const { return draining_ && !gave_up_; }

  /// As this rank is ending: reports to the others that it submits nothing more, once nothing is
  /// pending. Returns whether it has.
  bool leave();
  /// It has not, or it continues after all.
  void stay() { left_ = false; }

  /// Ends all calls with this error. Nothing begins any more.
  void close(const std::exception_ptr& error);

  /// Whether messages of calls that were given up may still be under way.
  bool gave_up() const { return gave_up_; }

 private:
  using Clock = std::chrono::steady_clock;
  using Keys = std::vector<std::string>;
  using Calls = std::vector<std::shared_ptr<Submission>>;

  /// Calls that run together. `next`: the slot that came after it, last time.
  struct Slot {
    Keys keys;
    int next;
  };
  static constexpr int kNone = -1;
  static constexpr std::size_t kMostSlots = 4096;

  struct Pending {
    std::uint64_t number;  // in the order of submission
    std::shared_ptr<Submission> call;
  };

  /// What is under way.
  struct Round {
    Round(Lane& lane, const Call& call) : operation(call), watch(lane, operation) {}
    Operation operation;
    Watch watch;
    std::unique_ptr<Task<>> task;
    Calls running;
  };

  bool begin(bool waits);
  void start(int slot);
  bool has(const Keys& keys) const;
  std::string description() const;
  void check();
  void require_members();
  void end_round();
  void give_up(std::unique_ptr<Round> round, const std::exception_ptr& error);
  void end_pending(const std::exception_ptr& error);

  Task<> meet(Operation& operation, int slot);
  Task<> negotiate(Operation& operation);
  Task<> refuse(Operation& operation, std::shared_ptr<Submission> call);
  Task<> run_all(Operation& operation, Calls calls);
  Task<> run(Operation& operation, Calls calls);

  void report_missing(std::span<const std::vector<Stated>> statements);
  std::string missing_calls(std::span<const std::vector<Stated>> statements) const;

  std::vector<Pending> in_order() const;
  static std::uint64_t fingerprint(const Calls& calls);
  Calls calls_of(const Keys& keys) const;
  void begin_running(const Calls& calls);
  std::vector<Calls> grouped(const Calls& calls) const;
  void note(const Calls& calls);

  const bool shares_memory_;
  const Neighbours neighbours_;
  Call call_;  // as which all rounds go
  Lane lane_;
  Routes routes_;
  const std::size_t fusion_bytes_;
  bool open_ = false;
  bool gave_up_ = false;
  bool left_ = false;
  std::string refused_;  // why no call is taken any more
  std::unique_ptr<Round> round_;

  std::unordered_map<std::string, std::deque<Pending>> pending_;  // by key
  std::size_t count_ = 0;                                         // of all that is pending
  std::uint64_t submitted_ = 0;

  std::vector<Slot> slots_;
  std::map<Keys, int> numbers_;  // of slots
  int first_ = kNone;            // slot of all
  int last_ = kNone;             // that has run

  std::uint64_t stated_ = 0;  // what was submitted before the last negotiation
  bool draining_ = false;
  /// Negotiations that have found nothing, one after another.
  struct InVain {
    Clock::time_point since;
    std::uint64_t submitted = 0;
    bool warned = false;
    bool operator==(const InVain&) const = default;
  };
  InVain in_vain_;
  Clock::duration pause_{};
  Clock::time_point resumes_;  // negotiating what was not pending everywhere

  Clock::time_point looked_, checked_;
  Clock::duration waited_{};  // in which nothing has moved
};

}  // namespace ronde
