// Contributions of all ranks to one range, reduced strictly in the order of the ranks.
#pragma once

#include "schedule/schedule.h"

namespace ronde {

/// `own` holds the contribution of this rank; those of the others come into slots of the scratch.
class RankOrder {
 public:
  RankOrder(const Layout& layout, Range own)
      : rank_(layout.rank), size_(layout.size()), own_(own) {}

  std::size_t scratch() const { return (size_ - 1) * own_.count; }

  Range slot(int peer) const {
    const int index = peer < rank_ ? peer : peer - 1;
    return {Where::scratch, index * own_.count, own_.count};
  }

  /// own = x0 op x1 op ... , from left to right.
  void reduce(Schedule& schedule, int step) const {
    // The lower ranks are reduced into the first slot, so that they are one operand left of our
    // own.
    for (int peer = 1; peer < rank_; ++peer) {
      schedule.reduce(step, slot(0), slot(peer), Order::range_first, {peer, 1});
    }
    if (rank_ > 0) schedule.reduce(step, own_, slot(0), Order::other_first, {1, rank_});
    for (int peer = rank_ + 1; peer < size_; ++peer) {
      schedule.reduce(step, own_, slot(peer), Order::range_first, {peer, 1});
    }
  }

 private:
  int rank_;
  int size_;
  Range own_;
};

}  // namespace ronde
