// One rank of a simulation: its schedule, its buffers, and how far it came.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "schedule/schedule.h"
#include "schedule/simulate.h"

namespace ronde::simulation {

constexpr int kUndefined = std::numeric_limits<int>::max();

/// One number of a buffer.
struct Element {
  std::uint64_t tree = 0;  // how it was computed
  std::uint64_t sum = 0;   // from which contributions
  int ready = kUndefined;  // the first step whose messages may use it
  int depth = 0;           // reductions on the longest way from a contribution to here
  int held = 1;            // contributions
};

inline std::uint64_t mix(std::uint64_t x) {  // the finaliser of splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

inline std::uint64_t leaf(int rank) { return mix(rank); }

/// The tree knows only the rank, so that trees compare across the vector; the sum knows both.
inline Element original(int rank, std::size_t position) {
  return {leaf(rank), mix(leaf(rank) + position), 0, 0, 1};
}

inline Element combined(const Element& left, const Element& right) {
  return {mix(mix(left.tree) + right.tree), left.sum + right.sum, std::max(left.ready, right.ready),
          std::max(left.depth, right.depth) + 1, left.held + right.held};
}

/// What a schedule did wrong. Never leaves the simulation.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::string where(int rank, const Action& action) {
  return "rank " + std::to_string(rank) + ", step " + std::to_string(action.step) + ": ";
}

inline Element reduced(const Element& range, const Element& other, const Action& action, int rank) {
  if (range.held != action.held.range || other.held != action.held.other) {
    throw Fault(where(rank, action) + "reduces " + std::to_string(range.held) + " and " +
                std::to_string(other.held) + " contributions, not " +
                std::to_string(action.held.range) + " and " + std::to_string(action.held.other));
  }
  return action.order == Order::range_first ? combined(range, other) : combined(other, range);
}

inline bool receives(const Action& action) {
  return action.verb == Verb::recv || action.verb == Verb::recv_reduce;
}
inline bool local(const Action& action) { return action.peer < 0; }
inline bool writes(const Action& action) { return action.verb != Verb::send; }

/// Both touch the same elements, and one of them writes.
inline bool conflict(const Action& a, const Action& b) {
  const auto touches = [](const Action& writer, const Action& other) {
    return writes(writer) && (writer.range.overlaps(other.range) ||
                              (local(other) && writer.range.overlaps(other.source)));
  };
  return touches(a, b) || touches(b, a);
}

/// Messages between two ranks must not overtake each other.
inline bool same_lane(const Action& a, const Action& b) {
  return !local(a) && a.peer == b.peer && receives(a) == receives(b);
}

class Runner {
 public:
  Runner(const Algorithm& algorithm, const Layout& layout) : layout(layout) {
    schedule = algorithm.build(layout);
    buffers[static_cast<int>(Where::data)].resize(layout.chunks.total());
    buffers[static_cast<int>(Where::input)].resize(layout.inputs.total());
    buffers[static_cast<int>(Where::scratch)].resize(schedule.scratch);
    done_.resize(schedule.actions.size());
    check_form();
    fill(algorithm.collective);
  }

  Element* at(const Range& range) {
    return buffers[static_cast<int>(range.where)].data() + range.offset;
  }

  bool finished() const { return first_ == schedule.actions.size(); }
  const Action& next() const { return schedule.actions[first_]; }

  void finish(std::size_t index) {
    done_[index] = true;
    while (!finished() && done_[first_]) ++first_;
  }

  /// The actions that may run now: among the first `window` unfinished ones, those that no earlier
  /// unfinished one holds up.
  std::vector<std::size_t> open(int window) const {
    std::vector<std::size_t> unfinished, free;
    const auto& actions = schedule.actions;
    for (std::size_t i = first_;
         i < actions.size() && unfinished.size() < static_cast<std::size_t>(window); ++i) {
      if (done_[i]) continue;
      const auto held_up_by = [&](std::size_t earlier) {
        return conflict(actions[earlier], actions[i]) || same_lane(actions[earlier], actions[i]);
      };
      if (std::none_of(unfinished.begin(), unfinished.end(), held_up_by)) free.push_back(i);
      unfinished.push_back(i);
    }
    return free;
  }

  Layout layout;
  Schedule schedule;
  std::array<std::vector<Element>, 3> buffers;
  SimulatedRank counted;

 private:
  void check_form() const {
    int step = 0;
    for (const Action& action : schedule.actions) {
      const std::string here = where(layout.rank, action);
      if (action.step < step || action.step >= schedule.steps) {
        throw Fault(here + "steps decrease, or are beyond the last");
      }
      step = action.step;
      const bool is_local = action.verb == Verb::copy || action.verb == Verb::reduce;
      if (is_local != local(action) || action.peer >= layout.size() || action.peer == layout.rank) {
        throw Fault(here + "peer " + std::to_string(action.peer) + " is not another rank");
      }
      if (writes(action) && action.range.where == Where::input) {
        throw Fault(here + "the input is written");
      }
      check_bounds(here, action.range);
      if (is_local) check_bounds(here, action.source);
    }
  }

  void check_bounds(const std::string& here, const Range& range) const {
    if (range.end() > buffers[static_cast<int>(range.where)].size()) {
      throw Fault(here + "a range ends outside its buffer");
    }
  }

  /// Defines what the caller of the collective gives.
  void fill(Collective collective) {
    const int rank = layout.rank;
    const bool root = rank == layout.root;
    Range given = layout.chunks.whole();
    switch (collective) {
      case Collective::allreduce:
      case Collective::reduce_scatter:
      case Collective::reduce:
        break;
      case Collective::broadcast:
      case Collective::scatter:
        if (!root) return;
        break;
      case Collective::allgather:
      case Collective::gather:
        given = layout.chunks[rank];
        break;
      case Collective::alltoall:
        given = layout.inputs.whole().in(Where::input);
        break;
    }
    for (std::size_t i = 0; i < given.count; ++i) at(given)[i] = original(rank, given.offset + i);
  }

  std::vector<bool> done_;
  std::size_t first_ = 0;  // the first unfinished action
};

}  // namespace ronde::simulation
