// What is piggybacked on phase 0, so that the allreduce of a short vector need not wait for its
// end: the contributions of all ranks, n(P-1) bytes. Each rank reduces them for itself, and the
// call is complete. J. Bruck et al., "Efficient algorithms for all-to-all communications in
// multiport message-passing systems", IEEE Trans. Parallel Distrib. Syst. 8 (1997).
#pragma once

#include <cstddef>
#include <vector>

#include "core/buffer.h"
#include "schedule/cost.h"

namespace ronde {

/// The rank so many places back. Places are counted round the ring, or where the number of ranks is
/// a power of two by bits, the highest first, so that two ranks are as far from each other both
/// ways.
int rank_at(int rank, int size, int places);

/// What a round of phase 0 adds to its message. Nothing of it is used unless all agree.
class Contributions {
 public:
  /// Of a message, with room to what MPI libraries send over TCP at once (settings.h).
  static constexpr std::size_t kMostBytes = 40 << 10;

  static bool fits(std::size_t bytes, int size);

  /// `mine` is copied. All ranks bring as many bytes.
  Contributions(int rank, int size, ConstBuffer mine);

  /// Writes what goes to the peer of the round, and returns how many bytes that is.
  std::size_t put(int round, std::byte* message) const;
  /// How many bytes come from the peer if its call is the same.
  std::size_t expected(int round) const;
  void take(int round, const std::byte* message);

  /// In the end: what that rank has brought.
  const std::byte* of(int rank) const;

 private:
  const int rank_, size_;
  const std::size_t length_;
  std::vector<std::byte> all_;  // by places from here
};

/// The seconds of an allreduce of so many bytes that is piggybacked on phase 0, those of phase 0
/// included. Infinite where it does not fit.
double riding_seconds(std::size_t bytes, int size, const Link& link);

}  // namespace ronde
