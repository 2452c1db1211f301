// Direct: every rank sends to every other, or the root to all, without detours.
//
//   reduce_scatter  1 step. Each rank sends chunk j to rank j, collects what comes for its own,
//                   and reduces it in the order of the ranks.
//   allgather       1 step. Each rank sends its chunk to all others.
//   allreduce       one, then the other.
//   alltoall        1 step. Each rank sends to each other what it has for it.
//   gather, scatter 1 step. The root receives a chunk from each rank, or sends one.
// No message waits for another, so that latencies overlap as far as the network lets them; there
// are P-1 messages a step. Each rank (gather, scatter: the root) sends or receives n(P-1)/P
// elements in each step, the minimum.
//
// Peers are taken in rotated order: the k-th send goes to the rank k further, the k-th
// receive comes from the rank k back. So the k-th sends and receives of all ranks fit
// together, no rank is overrun, and running them one pair after another cannot deadlock.
#include "schedule/rank_order.h"
#include "schedule/table.h"

namespace ronde::direct {

Schedule reduce_scatter(const Layout& layout) {
  const RankOrder contributions(layout, layout.chunks[layout.rank]);
  Schedule schedule{.actions = {}, .scratch = contributions.scratch(), .steps = 0};
  for (int k = 1; k < layout.size(); ++k) {
    const int to = layout.neighbour(k), from = layout.neighbour(-k);
    schedule.send(0, to, layout.chunks[to]);
    schedule.recv(0, from, contributions.slot(from));
  }
  contributions.reduce(schedule, 0);
  return schedule;
}

Schedule allgather(const Layout& layout) {
  Schedule schedule;
  for (int k = 1; k < layout.size(); ++k) {
    const int to = layout.neighbour(k), from = layout.neighbour(-k);
    schedule.send(0, to, layout.chunks[layout.rank]);
    schedule.recv(0, from, layout.chunks[from]);
  }
  return schedule;
}

Schedule allreduce(const Layout& layout) { return then(reduce_scatter(layout), allgather(layout)); }

Schedule alltoall(const Layout& layout) {
  const int self = layout.rank;
  Schedule schedule;
  for (int k = 1; k < layout.size(); ++k) {
    const int to = layout.neighbour(k), from = layout.neighbour(-k);
    schedule.send(0, to, layout.inputs[to].in(Where::input));
    schedule.recv(0, from, layout.chunks[from]);
  }
  schedule.copy(0, layout.chunks[self], layout.inputs[self].in(Where::input));
  return schedule;
}

Schedule gather(const Layout& layout) {
  Schedule schedule{.actions = {}, .scratch = 0, .steps = layout.size() > 1};
  if (layout.rank != layout.root) {
    schedule.send(0, layout.root, layout.chunks[layout.rank]);
    return schedule;
  }
  for (int k = 1; k < layout.size(); ++k) {
    const int from = layout.neighbour(k);
    schedule.recv(0, from, layout.chunks[from]);
  }
  return schedule;
}

Schedule scatter(const Layout& layout) {
  Schedule schedule{.actions = {}, .scratch = 0, .steps = layout.size() > 1};
  if (layout.rank != layout.root) {
    schedule.recv(0, layout.root, layout.chunks[layout.rank]);
    return schedule;
  }
  for (int k = 1; k < layout.size(); ++k) {
    const int to = layout.neighbour(k);
    schedule.send(0, to, layout.chunks[to]);
  }
  return schedule;
}

}  // namespace ronde::direct
