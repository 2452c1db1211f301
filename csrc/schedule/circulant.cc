// Circulant graph. J. L. Träff, "Optimal, non-pipelined reduce-scatter and allreduce algorithms",
// arXiv 2410.14234 (2024).
//
// Nouns: the view of rank r is all chunks, counted from its own backwards round the ring: R[i] is
// chunk r - i. The skips are P, ceil(P/2), ceil(P/4), ..., 1.
//   reduce_scatter  ceil(log2 P) steps, each from a skip s to the next, s'. Of R[0, s), which is
//                   still open, R[s', s) goes to rank r - s', for which it is R[0, s - s'); our
//                   own R[0, s - s') gets a contribution from rank r + s'.
//   allgather       ceil(log2 P) steps, the same way back: R[0, s') is known, and R[s', s) comes.
//   allreduce       one, then the other.
// Each rank sends and receives P-1 chunks in each phase, n(P-1)/P elements: minimal in steps and in
// volume, for any number of ranks. A range of the view may wrap round the end of the vector: then
// it is two messages of one step.
//
// The paper counts the view forwards. Backwards, rank 0 is among those whose ranges wrap whenever
// any do, so that its cost is the cost of the collective.
#include "schedule/table.h"

namespace ronde::circulant {
namespace {

std::vector<int> skips(int size) {
  std::vector<int> skips = {size};
  while (skips.back() > 1) skips.push_back((skips.back() + 1) / 2);
  return skips;
}

/// R[begin, end) of this rank.
std::vector<Range> view(const Layout& layout, int begin, int end) {
  return layout.chunks.around(layout.rank - end + 1, end - begin);
}

/// Calls both for the first ranges, then both for the second: sender and receiver agree on which is
/// which, so this order cannot deadlock.
template <class Send, class Receive>
void in_pairs(const std::vector<Range>& out, const std::vector<Range>& in, Send send,
              Receive receive) {
  for (std::size_t part = 0; part < 2; ++part) {
    if (part < out.size()) send(out[part]);
    if (part < in.size()) receive(in[part]);
  }
}

}  // namespace

Schedule reduce_scatter(const Layout& layout) {
  const std::vector<int> skip = skips(layout.size());
  const int steps = static_cast<int>(skip.size()) - 1;
  Schedule schedule;
  for (int step = 0; step < steps; ++step) {
    const int open = skip[step], kept = skip[step + 1];
    const int to = layout.neighbour(-kept), from = layout.neighbour(kept);
    in_pairs(
        view(layout, kept, open), view(layout, 0, open - kept),
        [&](Range range) { schedule.send(step, to, range); },
        [&](Range range) { schedule.recv_reduce(step, from, range, Order::range_first); });
  }
  return schedule;
}

Schedule allgather(const Layout& layout) {
  const std::vector<int> skip = skips(layout.size());
  const int steps = static_cast<int>(skip.size()) - 1;
  Schedule schedule;
  for (int step = 0; step < steps; ++step) {
    const int known = skip[steps - step], wanted = skip[steps - step - 1];
    const int to = layout.neighbour(known), from = layout.neighbour(-known);
    in_pairs(
        view(layout, 0, wanted - known), view(layout, known, wanted),
        [&](Range range) { schedule.send(step, to, range); },
        [&](Range range) { schedule.recv(step, from, range); });
  }
  return schedule;
}

Schedule allreduce(const Layout& layout) { return then(reduce_scatter(layout), allgather(layout)); }

}  // namespace ronde::circulant
