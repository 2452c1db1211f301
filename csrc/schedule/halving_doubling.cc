// Recursive halving and doubling. R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of
// collective communication operations in MPICH", Int. J. High Perform. Comput. Appl. 19 (2005).
//
//   reduce_scatter  log2 P steps. A rank works on a range of chunks, at first on all. In each it
//                   exchanges with the rank at half the distance: it keeps the half of the range
//                   with its own chunk and sends the other.
//   allgather       log2 P steps, in reverse: the range that a rank holds doubles.
//   allreduce       one, then the other. A number of ranks that is no power of two is folded to one
//                   that is (see fold.h), in two more steps.
// Each rank sends and receives n/2 + n/4 + ... = n(P-1)/P elements in each phase; those that are
// folded together carry n more each way.
//
// Ranks exchange at the same distances for every chunk, and the lower rank is the left operand: all
// elements are reduced by the same tree.
#include "schedule/fold.h"
#include "schedule/table.h"

namespace ronde::halving_doubling {
namespace {

/// Each core rank keeps the chunk of its number.
Schedule halving(const Fold& fold, int rank, const Chunks& chunks) {
  Schedule schedule{.actions = {}, .scratch = 0, .steps = ceil_log2(fold.core())};
  if (fold.folded(rank)) return schedule;
  const int self = fold.core_rank(rank);
  int step = 0;
  for (int distance = fold.core() / 2; distance > 0; distance /= 2, ++step) {
    // Of 2 x distance chunks, aligned, half go to the peer and half stay.
    const int other = self ^ distance, peer = fold.rank_of(other);
    const int given = other / distance * distance, kept = self / distance * distance;
    schedule.send(step, peer, chunks.span(given, given + distance));
    schedule.recv_reduce(step, peer, chunks.span(kept, kept + distance), lower_first(self, other),
                         {fold.held(self, 2 * distance), fold.held(other, 2 * distance)});
  }
  return schedule;
}

Schedule doubling(const Fold& fold, int rank, const Chunks& chunks) {
  Schedule schedule{.actions = {}, .scratch = 0, .steps = ceil_log2(fold.core())};
  if (fold.folded(rank)) return schedule;
  const int self = fold.core_rank(rank);
  int step = 0;
  for (int distance = 1; distance < fold.core(); distance *= 2, ++step) {
    const int other = self ^ distance, peer = fold.rank_of(other);
    const int held = self / distance * distance, missing = other / distance * distance;
    schedule.send(step, peer, chunks.span(held, held + distance));
    schedule.recv(step, peer, chunks.span(missing, missing + distance));
  }
  return schedule;
}

}  // namespace

Schedule reduce_scatter(const Layout& layout) {
  return halving(Fold(layout.size()), layout.rank, layout.chunks);
}

Schedule allgather(const Layout& layout) {
  return doubling(Fold(layout.size()), layout.rank, layout.chunks);
}

Schedule allreduce(const Layout& layout) {
  const Fold fold(layout.size());
  const Chunks chunks = Chunks::even(layout.chunks.total(), fold.core());
  const Schedule core =
      then(halving(fold, layout.rank, chunks), doubling(fold, layout.rank, chunks));
  return then(then(fold.before(layout), core), fold.after(layout));
}

}  // namespace ronde::halving_doubling
