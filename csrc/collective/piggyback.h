// The data of a short allreduce, piggybacked on the messages of phase 0: the contributions of all
// ranks, n(P-1) bytes. Each rank reduces them for itself, and the call is complete. J. Bruck et
// al., "Efficient algorithms for all-to-all communications in multiport message-passing systems",
// IEEE Trans. Parallel Distrib. Syst. 8 (1997).
#pragma once

#include <cstddef>
#include <vector>

#include "core/buffer.h"
#include "schedule/cost.h"

namespace ronde {

/// The rank at this distance. Distances are counted backwards round the ring. Where the number of
/// ranks is a power of two, they are counted by bits, the highest first, so that a distance is the
/// same both ways.
int rank_at(int rank, int size, int distance);

/// What a round of phase 0 adds to its message. Nothing of it is used unless all agree.
class Contributions {
 public:
  /// Of a message. MPI libraries send a little more than that over TCP at once (settings.h).
  static constexpr std::size_t kMostBytes = 40 << 10;

  static bool fits(std::size_t bytes, int size);

  /// `mine` is copied, and has as many bytes on all ranks.
  Contributions(int rank, int size, ConstBuffer mine);

  /// Writes what goes to the peer of the round, and returns how many bytes that is.
  std::size_t put(int round, std::byte* message) const;
  /// How many bytes come from the peer if its call is the same.
  std::size_t expected(int round) const;
  void take(int round, const std::byte* message);

  /// After the last round: the contribution of that rank.
  const std::byte* of(int rank) const;

 private:
  const int rank_, size_;
  const std::size_t length_;
  std::vector<std::byte> all_;  // by distance from this rank
};

/// The seconds of an allreduce that is piggybacked on phase 0, which they include. Infinite where
/// it does not fit.
double piggyback_seconds(std::size_t bytes, int size, const Link& link);

}  // namespace ronde
