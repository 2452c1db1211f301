// Any number of ranks for algorithms that want a power of two.
//
// Nouns: the core is the largest power of two of ranks, the surplus the ranks beyond it. Among the
// first 2 x surplus ranks each odd one folds onto the even one below it: it hands over its vector
// before the algorithm and gets the result after it. Core ranks are numbered in the order of
// ranks, so that a lower core rank always stands for lower ranks.
#pragma once

#include <bit>

#include "schedule/schedule.h"

namespace ronde {

class Fold {
 public:
  explicit Fold(int size)
      : core_(static_cast<int>(std::bit_floor(static_cast<unsigned>(size)))),
        surplus_(size - core_) {}

  int core() const { return core_; }
  bool folded(int rank) const { return paired(rank) && rank % 2 == 1; }
  int core_rank(int rank) const { return paired(rank) ? rank / 2 : rank - surplus_; }
  int rank_of(int core_rank) const {
    return core_rank < surplus_ ? 2 * core_rank : core_rank + surplus_;
  }

  /// The contributions that a core rank holds when all core ranks at multiples of this distance
  /// from it have reduced with each other.
  int held(int core_rank, int distance) const {
    int contributions = 0;
    for (int each = core_rank % distance; each < core_; each += distance)
      contributions += each < surplus_ ? 2 : 1;
    return contributions;
  }

  /// One step, none where there is no surplus: what stays of a pair holds both contributions.
  Schedule before(const Layout& layout) const {
    Schedule schedule{.actions = {}, .scratch = 0, .steps = surplus_ > 0};
    const Range whole = layout.chunks.whole();
    if (folded(layout.rank)) {
      schedule.send(0, layout.rank - 1, whole);
    } else if (paired(layout.rank)) {
      schedule.recv_reduce(0, layout.rank + 1, whole, Order::range_first, {1, 1});
    }
    return schedule;
  }

  /// One step, none where there is no surplus: the result goes back to those who folded.
  Schedule after(const Layout& layout) const {
    Schedule schedule{.actions = {}, .scratch = 0, .steps = surplus_ > 0};
    const Range whole = layout.chunks.whole();
    if (folded(layout.rank)) {
      schedule.recv(0, layout.rank - 1, whole);
    } else if (paired(layout.rank)) {
      schedule.send(0, layout.rank + 1, whole);
    }
    return schedule;
  }

 private:
  bool paired(int rank) const { return rank < 2 * surplus_; }

  int core_;
  int surplus_;
};

/// The order of operands between `rank` and `peer` that puts the lower one first.
constexpr Order lower_first(int rank, int peer) {
  return rank < peer ? Order::range_first : Order::other_first;
}

}  // namespace ronde
