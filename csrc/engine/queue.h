// The asynchronous calls of one process set, on lanes of their own.
//
// Ranks may submit calls in any order. They synchronise in rounds. In a negotiation all state what
// they have pending: what is pending everywhere runs, in the order of the first rank, in slots:
// calls that can be fused, up to some bytes. The ranks remember which slot came after which. So the
// next time a rank goes into a slot as soon as it has all of it, and they only compare, in a phase
// 0, whether they are all in the same slot. If one is not, as it waits for another call, they
// negotiate: before any data has moved. Inside a machine a short slot is reduced in that phase 0.
//
// Rounds use the lanes in turn, so several are under way: while one crosses the network the next
// reduces in the memory of the machine. A round begins when the one before has found out what runs,
// and its lane is free. So all ranks have the same rounds on the same lanes, whenever each ends.
//
// A rank goes into a negotiation when somebody waits. If nothing was pending everywhere it comes
// back when it has more to state, or after a while.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "collective/lane.h"
#include "collective/routes.h"
#include "collective/watch.h"
#include "engine/missing.h"
#include "engine/slots.h"
#include "engine/statement.h"
#include "engine/submission.h"
#include "engine/submitted.h"
#include "trace/timeline.h"

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
  bool moves() const;
  /// With that, at most.
  Patience patience() const;
  bool idle() const {
    return !moves() && due_.empty() && submitted_.count() == 0 && joining_ != Joining::on;
  }

  /// Negotiates from now on, whether or not anything is pending, until nothing is that all ranks
  /// have. All must call it, and make progress until then.
  void drain() { draining_ = Drain::on; }
  bool drains() const { return !gave_up_ && (draining_ == Drain::on || moves() || !due_.empty()); }

  /// This rank has no more data: from now on it negotiates, and takes part in the calls of the
  /// others with neutral values, until all ranks have joined and nothing is pending. Nothing can be
  /// submitted until `end_join`, which returns in how many negotiations it has taken part.
  void join(Join average);
  void require_no_join() const;
  bool is_joining() const { return joining_ != Joining::off; }
  bool awaits_join() const { return joining_ == Joining::on || moves() || !due_.empty(); }
  std::uint64_t end_join();

  /// As this rank is ending: reports to the others that it submits nothing more, once nothing is
  /// pending. Returns whether it has.
  bool leave();
  /// It has not, or it continues after all.
  void stay() { left_ = false; }

  /// Ends all calls with this error. Nothing begins any more.
  void close(const std::exception_ptr& error);

  /// Whether messages of calls that were given up may still be under way.
  bool gave_up() const { return gave_up_; }
  /// Why no call is taken any more; empty while they are.
  const std::string& refused() const { return refused_; }

 private:
  using Clock = std::chrono::steady_clock;

  // How a statement begins: whether the rank drains, or how it has joined.
  static constexpr char kDrains = 'd';
  static constexpr char kBySize = static_cast<char>(Join::size);
  static constexpr char kByContributing = static_cast<char>(Join::contributing);

  static constexpr std::size_t kMostSlots = 4;               // that ranks go for at once
  static constexpr std::size_t kWords = 1 + 2 * kMostSlots;  // by which they know which these are
  static constexpr std::size_t kShown = 5;                   // pending calls that a report names

  static double seconds(Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  }

  /// What is under way on a lane.
  struct Round {
    Round(Lane& lane, const Call& call) : operation(call), watch(lane, operation) {}
    Operation operation;
    Watch watch;
    std::unique_ptr<Task<>> task;
    Calls running;
    Clock::time_point looked, checked;
    Clock::duration waited{};  // in which nothing has moved
  };

  struct Track {
    Track(const Lane& blocking, Lane::Asynchronous one) : lane(blocking, one), routes(lane) {}
    Lane lane;
    Routes routes;
    std::unique_ptr<Round> round;
  };

  /// Of all calls: any lane may run them.
  Recorder& recorder() const { return tracks_[0]->lane.recorder(); }
  Track& track(std::uint64_t round) { return *tracks_[round % tracks_.size()]; }
  bool begin(bool waits);
  bool progress(Track& track);
  void check(Track& track);
  void require_members(Track& track);
  void end_round(Track& track);
  void give_up(const std::exception_ptr& error);
  void end_pending(const std::exception_ptr& error);
  std::string description(const Track& track) const;

  Task<> open(Operation& operation);
  Task<> agree(Track& track, Operation& operation, std::vector<Calls> slots);
  /// Of a slot: what is so short that it can be reduced while the ranks agree on it.
  struct Short {
    std::vector<Piece> pieces;
    Reduction reduction;
  };
  Short short_part(const Track& track, const std::vector<Calls>& slots) const;
  /// Of the slots that ranks go for.
  struct Alike {
    std::size_t slots = 0;          // so many, from the first, are those of all ranks
    bool first_is_reduced = false;  // as all ranks had it in their notes
  };
  Task<> find_alike(Track& track, Operation& operation, const std::vector<Calls>& slots,
                    Alike& alike);
  Task<> negotiate(Track& track, Operation& operation);
  Task<> refuse(Track& track, Operation& operation, std::shared_ptr<Submission> call);
  Task<Calls> matched(Track& track, Operation& operation, std::vector<Match> found,
                      std::string states);
  Task<> know_link(Track& track, Operation& operation);
  Task<> run(Track& track, Operation& operation, Calls calls);

  void commit(const Calls& calls);
  void note(Submission& submission);
  Span begun(const Track& track, const Calls& calls) const;
  void finish(const Calls& calls);
  void count(const Calls& calls);
  void fail(const Calls& calls, const std::exception_ptr& error, bool touched = false);
  Calls take_due();
  bool alike(const Fusable& one, const Fusable& other) const;
  std::vector<Calls> grouped(const Calls& calls) const;
  void drop(const Calls& calls, const std::exception_ptr& error);
  void end_overdue(std::span<const std::vector<Stated>> statements,
                   const std::vector<bool>& joined);
  void warn(const std::map<std::string, Unmatched>& all,
            std::span<const std::vector<Stated>> statements);
  void end(const std::string& key, std::size_t from, std::size_t to, const std::string& why);

  const bool shares_memory_;
  const Neighbours neighbours_;
  const std::size_t fusion_bytes_;
  Call call_;  // as which all rounds go
  std::array<std::unique_ptr<Track>, Lane::kMostAsynchronous> tracks_;
  bool open_ = false;         // the lanes share memory, if they can
  std::uint64_t rounds_ = 0;  // that have begun
  bool agreeing_ = false;     // the last of them has not found out what runs

  Submitted submitted_;
  Slots slots_;
  std::deque<Calls> due_;  // what the ranks have agreed to run, one round each

  bool gave_up_ = false;
  bool left_ = false;
  enum class Drain { off, on, over } draining_ = Drain::off;
  enum class Joining { off, on, over } joining_ = Joining::off;
  Join average_ = Join::no;          // while joining
  std::uint64_t joins_ = 0;          // so far
  std::uint64_t joined_rounds_ = 0;  // negotiations in which this rank has stated the last of them
  std::string refused_;              // why no call is taken any more

  std::uint64_t stated_ = 0;      // what was submitted before the last negotiation
  std::set<std::string> warned_;  // keys of calls that some ranks lack
  Clock::duration pause_{};
  Clock::time_point resumes_;  // negotiating what was not pending everywhere
};

}  // namespace ronde
