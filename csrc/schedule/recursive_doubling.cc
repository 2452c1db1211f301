// Recursive doubling. R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of collective
// communication operations in MPICH", Int. J. High Perform. Comput. Appl. 19 (2005).
//
//   allreduce  log2 P steps. In each a rank swaps its whole vector with the one at a distance of a
//              power of two, and both reduce. A number of ranks that is no power of two is folded
//              to one that is (see fold.h), in two more steps.
// Each rank sends and receives n elements in each step: the fewest latencies, for small vectors.
//
// The lower rank is the left operand, so both compute the same bits. The distances are those of
// halving_doubling, largest first: both algorithms reduce by the same tree, and a choice between
// them by size is not seen in the result.
#include "schedule/fold.h"
#include "schedule/table.h"

namespace ronde::recursive_doubling {
namespace {

Schedule core(const Fold& fold, int rank, Range whole) {
  Schedule schedule{.actions = {}, .scratch = whole.count, .steps = ceil_log2(fold.core())};
  if (fold.folded(rank)) return schedule;
  const int self = fold.core_rank(rank);
  int step = 0;
  for (int distance = fold.core() / 2; distance > 0; distance /= 2, ++step) {
    const int other = self ^ distance, peer = fold.rank_of(other);
    schedule.send(step, peer, whole);
    // Not reduced as it comes: what is being sent must not change.
    schedule.recv(step, peer, whole.in(Where::scratch));
    schedule.reduce(step, whole, whole.in(Where::scratch), lower_first(self, other),
                    {fold.held(self, 2 * distance), fold.held(other, 2 * distance)});
  }
  return schedule;
}

}  // namespace

Schedule allreduce(const Layout& layout) {
  const Fold fold(layout.size());
  const Schedule doubled = core(fold, layout.rank, layout.chunks.whole());
  return then(then(fold.before(layout), doubled), fold.after(layout));
}

}  // namespace ronde::recursive_doubling
