// What rides along in phase 0, so that the allreduce of a short vector need not wait for its end.
//
//   Contributions  Every rank gets what each has brought, and reduces for itself: n(P-1) bytes, and
//                  then that was all. J. Bruck et al., "Efficient algorithms for all-to-all
//                  communications in multiport message-passing systems", IEEE Trans. Parallel
//                  Distrib. Syst. 8 (1997).
//   Halving        The reduce-scatter of halving_doubling.cc, between a power of two of ranks; its
//                  allgather follows when all have agreed. 2n(P-1)/P bytes together.
#pragma once

#include <cstddef>
#include <vector>

#include "core/buffer.h"
#include "core/reduction.h"
#include "schedule/cost.h"
#include "schedule/schedule.h"

namespace ronde {

/// What a round of phase 0 adds to its message. Nothing of it is used unless all agree, so it keeps
/// to its own memory.
class Rider {
 public:
  /// Of a message, with room to what MPI libraries send over TCP at once (settings.h).
  static constexpr std::size_t kMostBytes = 40 << 10;

  virtual ~Rider() = default;

  /// Writes what goes to the peer of the round, and returns how many bytes that is.
  virtual std::size_t put(int round, std::byte* message) = 0;
  /// How many bytes come from the peer if its call is the same.
  virtual std::size_t expected(int round) const = 0;
  virtual void take(int round, const std::byte* message) = 0;
};

/// The rank so many places back. Places are counted round the ring, or where the number of ranks is
/// a power of two by bits, the highest first, so that two ranks are as far from each other both
/// ways.
int rank_at(int rank, int size, int places);

class Contributions final : public Rider {
 public:
  static bool fits(std::size_t bytes, int size);

  /// `mine` is copied. All ranks bring as many bytes.
  Contributions(int rank, int size, ConstBuffer mine);

  std::size_t put(int round, std::byte* message) override;
  std::size_t expected(int round) const override;
  void take(int round, const std::byte* message) override;

  /// In the end: what that rank has brought.
  const std::byte* of(int rank) const;

 private:
  const int rank_, size_;
  const std::size_t length_;
  std::vector<std::byte> all_;  // by places from here
};

class Halving final : public Rider {
 public:
  static bool fits(std::size_t bytes, int size);

  /// `vector` is Ronde's own memory. In the end this rank's chunk of it is reduced.
  Halving(int rank, const Chunks& chunks, Buffer vector, const Reduction& reduction);

  std::size_t put(int round, std::byte* message) override;
  std::size_t expected(int round) const override;
  void take(int round, const std::byte* message) override;

 private:
  /// The half of the range of a round that a rank keeps.
  Buffer half(int round, int rank) const;

  const int rank_;
  const Chunks chunks_;
  const Buffer vector_;
  const Reduction reduction_;
};

enum class Ride { none, contributions, halving };

struct Riding {
  Ride ride = Ride::none;
  double seconds = 0;  // predicted, phase 0 included
};

/// How a vector of so many bytes is reduced soonest by so many ranks, if that is sooner than
/// `otherwise`: the seconds that it takes when nothing rides, phase 0 included.
Riding cheapest_ride(std::size_t bytes, int size, const Link& link, double otherwise);

}  // namespace ronde
