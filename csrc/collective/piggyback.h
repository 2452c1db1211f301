// Data that the messages of phase 0 carry with them.
//
// Of a short allreduce these are the contributions of all ranks, n(P-1) bytes. Each rank reduces
// them for itself, and the call is complete. J. Bruck et al., "Efficient algorithms for all-to-all
// communications in multiport message-passing systems", IEEE Trans. Parallel Distrib. Syst. 8
// (1997). Where it does no harm to count a contribution twice, n log2 P bytes are enough.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "schedule/cost.h"

namespace ronde {

/// The rank at this distance. Distances are counted backwards round the ring. Where the number of
/// ranks is a power of two, they are counted by bits, the highest first, so that a distance is the
/// same both ways.
int rank_at(int rank, int size, int distance);

/// What a round of phase 0 adds to its message. Nothing of it is used unless all agree.
class Piggyback {
 public:
  virtual ~Piggyback() = default;

  /// Writes what goes to the peer of the round, and returns how many bytes that is.
  virtual std::size_t put(int round, std::byte* message) const = 0;
  /// How many bytes come from the peer if its call is the same.
  virtual std::size_t expected(int round) const = 0;
  virtual void take(int round, const std::byte* message) = 0;
};

/// All of them, on all ranks.
class Contributions final : public Piggyback {
 public:
  /// Of a message. MPI libraries send a little more than that over TCP at once (settings.h).
  static constexpr std::size_t kMostBytes = 40 << 10;

  static bool fits(std::size_t bytes, int size);

  /// `mine` is copied, and has as many bytes on all ranks.
  Contributions(int rank, int size, ConstBuffer mine);

  std::size_t put(int round, std::byte* message) const override;
  std::size_t expected(int round) const override;
  void take(int round, const std::byte* message) override;

  /// After the last round: the contribution of that rank.
  const std::byte* of(int rank) const;

 private:
  const int rank_, size_;
  const std::size_t length_;
  std::vector<std::byte> all_;  // by distance from this rank
};

/// The least of each word on all ranks, in place.
class Least final : public Piggyback {
 public:
  explicit Least(std::span<std::uint64_t> words) : words_(words) {}

  std::size_t put(int round, std::byte* message) const override;
  std::size_t expected(int) const override { return words_.size_bytes(); }
  void take(int round, const std::byte* message) override;

 private:
  const std::span<std::uint64_t> words_;
};

/// The seconds of an allreduce that is piggybacked on phase 0, which they include. Infinite where
/// it does not fit.
double piggyback_seconds(std::size_t bytes, int size, const Link& link);

}  // namespace ronde
