// One shot: every rank sends all it has to every other, and each rank reduces for itself.
//
//   allreduce  1 step, P-1 messages. Each rank sends, receives and reduces n(P-1) elements.
// The lowest latency there is, for vectors of a few bytes and for few ranks.
//
// Each rank reduces in the order of the ranks: all compute the same bits, those of `direct`.
#include "schedule/rank_order.h"
#include "schedule/table.h"

namespace ronde::one_shot {

Schedule allreduce(const Layout& layout) {
  const Range whole = layout.chunks.whole();
  const RankOrder contributions(layout, whole);
  Schedule schedule{.actions = {}, .scratch = contributions.scratch(), .steps = 0};
  for (int k = 1; k < layout.size(); ++k) {
    const int to = layout.neighbour(k), from = layout.neighbour(-k);
    schedule.send(0, to, whole);
    schedule.recv(0, from, contributions.slot(from));
  }
  contributions.reduce(schedule, 0);
  return schedule;
}

}  // namespace ronde::one_shot
