// The ranks of a communicator of the fake NCCL (fake_nccl.cc), and the calls that wait for peers.
#pragma once

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

/// Of a communicator, as a rank of it sees it.
struct State {
  bool complete = false;  // all ranks have come
  bool failed = false;    // this one has
  bool quiet = false;     // all have ended, and all that was called has been done
};

struct Rank {
  bool joined = false, failed = false, finalised = false, aborted = false, killed = false;
  std::size_t issued = 0, finished = 0;  // groups; the first is known when it is finalised
  std::size_t collectives = 0;           // that have begun
  std::shared_ptr<Group> current;
  std::string error;
};

/// The ranks of a communicator.
class World {
 public:
  explicit World(int size) : ranks_(static_cast<std::size_t>(size)) {}

  int size() const { return static_cast<int>(ranks_.size()); }

  /// What is wrong with it; empty if nothing is.
  std::string join(int r, int size);
  State state(int r);
  void finalise(int r, std::size_t issued);
  void run(int r, const std::shared_ptr<Group>& group);
  void abort(int r);
  void kill(int r);
  /// Whether operations that have not begun wait.
  void hold(bool held);
  std::string error(int r) {
    const std::lock_guard lock(mutex_);
    return rank(r).error;
  }

 private:
  Rank& rank(int r) { return ranks_[static_cast<std::size_t>(r)]; }
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
  int joined_ = 0;
  bool held_ = false;
  std::map<Pair, std::list<Waiting>> sends_, receives_;
  std::map<std::size_t, Round> rounds_;
};

}  // namespace fake_nccl
