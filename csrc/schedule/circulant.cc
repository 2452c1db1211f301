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
// it is two messages of one step. R[i] never holds more contributions than R[i-1]. Where it holds
// fewer, and P is no power of two, a message is received first and its chunks reduced one by one.
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
  std::vector<int> held(layout.size(), 1);  // contributions, by R[i]: the same on all ranks
  for (int step = 0; step < steps; ++step) {
    const int open = skip[step], kept = skip[step + 1], given = open - kept;
    const int to = layout.neighbour(-kept), from = layout.neighbour(kept);
    const bool alike = held[0] == held[given - 1] && held[kept] == held[open - 1];
    in_pairs(
        view(layout, kept, open), view(layout, 0, given),
        [&](Range range) { schedule.send(step, to, range); },
        [&](Range range) {
          if (alike)
            schedule.recv_reduce(step, from, range, Order::range_first, {held[0], held[kept]});
          else
            schedule.recv(step, from, range.in(Where::scratch));
        });
    if (!alike) schedule.scratch = layout.chunks.total();
    for (int i = 0; i < given; ++i) {
      if (!alike) {
        const Range chunk = layout.chunks[layout.neighbour(-i)];
        schedule.reduce(step, chunk, chunk.in(Where::scratch), Order::range_first,
                        {held[i], held[kept + i]});
      }
      held[i] += held[kept + i];
    }
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
