// Binomial tree. J. Bruck et al. and many before; described in R. Thakur, R. Rabenseifner and
// W. Gropp, "Optimization of collective communication operations in MPICH" (2005).
//
// Nouns: the position of a rank is its distance from the root round the ring; the root has 0. The
// parent of position v is v with its lowest bit cleared, so the subtree of v is the positions from
// v up to v + lowest bit, a range round the ring.
//   broadcast  ceil(log2 P) steps, n elements in each. Longest edges first.
//   scatter    the same edges, each with the chunks of a subtree: the root sends n(P-1)/P in all.
//   reduce     the edges backwards, shortest first, n elements in each.
//   gather     the same, each with the chunks of a subtree.
// Chunks of a subtree may wrap round the end of the vector: then they are two messages of one step.
//
// In reduce the parent is the left operand: contributions stay in the order of the positions,
// from the root onwards. All elements are reduced by the same tree; another root, another tree.
#include <algorithm>

#include "schedule/table.h"

namespace ronde::tree {
namespace {

/// The edges of one rank in the tree. `distance` is the length of an edge, a power of two.
class Edges {
 public:
  explicit Edges(const Layout& layout)
      : layout_(layout), relative_(layout.neighbour(-layout.root)), size_(layout.size()) {}

  bool child_at(int distance) const { return relative_ % (2 * distance) == distance; }
  bool parent_at(int distance) const {
    return relative_ % (2 * distance) == 0 && relative_ + distance < size_;
  }
  /// How many ranks the subtrees on both sides of the edge to the child have, up to this distance.
  Held held_at(int distance) const {
    return {distance, std::min(distance, size_ - relative_ - distance)};
  }
  int parent(int distance) const { return layout_.neighbour(-distance); }
  int child(int distance) const { return layout_.neighbour(distance); }

  /// The chunks that travel on the edge to the parent.
  std::vector<Range> own_subtree(int distance) const { return subtree(0, distance); }
  /// The chunks that travel on the edge to the child.
  std::vector<Range> child_subtree(int distance) const { return subtree(distance, distance); }

 private:
  std::vector<Range> subtree(int ahead, int distance) const {
    const int number = std::min(distance, size_ - relative_ - ahead);
    return layout_.chunks.around(layout_.rank + ahead, number);
  }

  const Layout& layout_;
  int relative_;  // to the root
  int size_;
};

/// Ranks without an edge in the last steps know of them too.
Schedule empty(const Layout& layout) {
  return {.actions = {}, .scratch = 0, .steps = ceil_log2(layout.size())};
}

}  // namespace

Schedule broadcast(const Layout& layout) {
  const Edges edges(layout);
  const Range whole = layout.chunks.whole();
  Schedule schedule = empty(layout);
  for (int step = 0; step < schedule.steps; ++step) {
    const int distance = 1 << (schedule.steps - 1 - step);
    if (edges.child_at(distance)) schedule.recv(step, edges.parent(distance), whole);
    if (edges.parent_at(distance)) schedule.send(step, edges.child(distance), whole);
  }
  return schedule;
}

Schedule reduce(const Layout& layout) {
  const Edges edges(layout);
  const Range whole = layout.chunks.whole();
  Schedule schedule = empty(layout);
  for (int step = 0; step < schedule.steps; ++step) {
    const int distance = 1 << step;
    if (edges.child_at(distance)) schedule.send(step, edges.parent(distance), whole);
    if (edges.parent_at(distance)) {
      schedule.recv_reduce(step, edges.child(distance), whole, Order::range_first,
                           edges.held_at(distance));
    }
  }
  return schedule;
}

Schedule scatter(const Layout& layout) {
  const Edges edges(layout);
  Schedule schedule = empty(layout);
  for (int step = 0; step < schedule.steps; ++step) {
    const int distance = 1 << (schedule.steps - 1 - step);
    if (edges.child_at(distance)) {
      for (const Range& range : edges.own_subtree(distance)) {
        schedule.recv(step, edges.parent(distance), range);
      }
    }
    if (edges.parent_at(distance)) {
      for (const Range& range : edges.child_subtree(distance)) {
        schedule.send(step, edges.child(distance), range);
      }
    }
  }
  return schedule;
}

Schedule gather(const Layout& layout) {
  const Edges edges(layout);
  Schedule schedule = empty(layout);
  for (int step = 0; step < schedule.steps; ++step) {
    const int distance = 1 << step;
    if (edges.child_at(distance)) {
      for (const Range& range : edges.own_subtree(distance)) {
        schedule.send(step, edges.parent(distance), range);
      }
    }
    if (edges.parent_at(distance)) {
      for (const Range& range : edges.child_subtree(distance)) {
        schedule.recv(step, edges.child(distance), range);
      }
    }
  }
  return schedule;
}

}  // namespace ronde::tree
