// The ranks of a communicator of the fake NCCL (fake_nccl.cc), and the calls that wait for peers.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fake_nccl_calls.h"

namespace fake_nccl {

/// Calls that are one operation, of one rank.
struct Group {
  std::vector<Call> calls;
  std::set<void*> streams;  // all wait for it
  std::size_t number = 0;   // among those of its rank
  std::size_t arrived = 0;  // streams
  std::size_t left = 0;     // calls that have not been done
  bool ended = false;
};

/// A call that waits for peers.
struct Waiting {
  int rank = 0;
  std::shared_ptr<Group> group;
  Call* call = nullptr;
};

struct Rank {
  std::atomic<bool> failed = false, finalised = false;
  std::atomic<std::size_t> issued = 0, finished = 0;  // groups
  bool joined = false, aborted = false, killed = false;
  std::size_t collectives = 0;  // that have begun
  std::shared_ptr<Group> current;
  std::string error;
};

/// The ranks of a communicator.
class World {
 public:
  explicit World(int size) : ranks_(static_cast<std::size_t>(size)) {}

  int size() const { return static_cast<int>(ranks_.size()); }
  Rank& rank(int r) { return ranks_[static_cast<std::size_t>(r)]; }

  /// False if this rank has come before.
  bool join(int r) {
    const std::lock_guard lock(mutex_);
    if (std::exchange(rank(r).joined, true)) return false;
    ++joined_;
    changed_.notify_all();
    return true;
  }
  bool complete() const { return joined_ == size(); }
  void await_all() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return complete(); });
  }

  bool quiet() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) {
      return rank.finalised && rank.finished == rank.issued;
    });
  }
  void finalise(int r) {
    const std::lock_guard lock(mutex_);
    rank(r).finalised = true;
    changed_.notify_all();
  }
  void await_quiet(int r) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return rank(r).aborted || quiet(); });
  }

  void run(int r, const std::shared_ptr<Group>& group);
  void abort(int r);
  void kill(int r);
  std::string error(int r) {
    const std::lock_guard lock(mutex_);
    return rank(r).error;
  }

 private:
  using Pair = std::pair<int, int>;      // from, to
  using Round = std::map<int, Waiting>;  // a collective, by ranks
  struct Edge {
    int rank;
    const Call* call;
  };

  void begin(int r, const std::shared_ptr<Group>& group, Call& call);
  void begin_move(const Waiting& own);
  void begin_collective(const Waiting& own);
  std::vector<int> missing(const Call& call) const;
  bool find_cycle(int start, int r, std::vector<Edge>& path, std::set<int>& seen) const;
  void report_cycle(int r);
  void done(const Waiting& waiting);
  void fail(const std::vector<int>& which, const std::string& why);
  void withdraw(int r);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Rank> ranks_;
  std::atomic<int> joined_ = 0;
  std::map<Pair, std::list<Waiting>> sends_, receives_;
  std::map<std::size_t, Round> rounds_;
};

}  // namespace fake_nccl
