// Ring. P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
// workstations", J. Parallel Distrib. Comput. 69 (2009).
//
// The ranks form a ring; each sends to the next and receives from the previous one, a chunk in
// each step.
//   reduce_scatter  P-1 steps. Chunk c sets out at rank c+1, collects the contribution of each rank
//                   that it comes by, and ends complete at rank c.
//   allgather       P-1 steps. Chunk c sets out at rank c and is copied by each rank on its way.
//   allreduce       one, then the other.
// Each rank sends and receives n(P-1)/P elements in each phase: no algorithm can do with fewer.
// Every message goes to a neighbour, so links are never shared; the price is P-1 latencies.
//
// The sum of chunk c begins with rank c+1: its rounding depends on its position in the vector.
#include "schedule/table.h"

namespace ronde::ring {

Schedule reduce_scatter(const Layout& layout) {
  const int next = layout.neighbour(1), previous = layout.neighbour(-1);
  Schedule schedule;
  for (int step = 0; step < layout.size() - 1; ++step) {
    schedule.send(step, next, layout.chunks[layout.neighbour(-1 - step)]);
    // What comes holds step + 1 contributions, and one more when it goes on in the next step.
    const Range arriving = layout.chunks[layout.neighbour(-2 - step)];
    schedule.recv_reduce(step, previous, arriving, Order::other_first, {1, step + 1});
  }
  return schedule;
}

Schedule allgather(const Layout& layout) {
  const int next = layout.neighbour(1), previous = layout.neighbour(-1);
  Schedule schedule;
  for (int step = 0; step < layout.size() - 1; ++step) {
    // Before step s a rank holds its own chunk and the s before it; the last to come goes on.
    schedule.send(step, next, layout.chunks[layout.neighbour(-step)]);
    schedule.recv(step, previous, layout.chunks[layout.neighbour(-1 - step)]);
  }
  return schedule;
}

Schedule allreduce(const Layout& layout) { return then(reduce_scatter(layout), allgather(layout)); }

}  // namespace ronde::ring
