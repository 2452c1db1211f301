// What the ranks of one machine see of each other: a segment with a line and two stages for each
// rank, two shared results, and a barrier.
//
//   line    what a rank says in phase 0: the fingerprint of its call
//   stage   where a rank puts a chunk of its data for the others to read; two, used in turn
//   result  where the ranks put the slices they have reduced; two, used in turn
//
// The barrier is one counter: the n-th time that all ranks have arrived it stands at n times their
// number. Whoever arrives last wakes those who sleep, if any do.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "node/segment.h"

namespace ronde {

class Board {
 public:
  /// How vectors are cut: small enough for the stages that are in use to stay in a core's cache.
  static constexpr std::size_t kStageBytes = 128 << 10;

  static std::size_t bytes_for(int ranks);

  /// `segment` is that of all ranks, of bytes_for(size) bytes.
  Board(std::shared_ptr<Segment> segment, int rank, int size);

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// The handshake: each rank signs with a word that all know, and sees whether all have signed.
  /// Only ranks that truly share the memory see each other's signature.
  void sign(std::uint64_t word);
  bool all_signed(std::uint64_t word) const;

  /// Begins a round of phase 0, and what ranks have said in it, once the barrier is passed.
  void say(std::uint64_t fingerprint);
  std::uint64_t said(int rank) const;

  std::byte* stage(int rank, std::uint64_t chunk) const;
  std::byte* result(std::uint64_t chunk) const;

  /// The chunks that have gone through the stages so far: they are used in turn across calls too.
  std::uint64_t chunks() const { return chunks_; }
  void count_chunks(std::uint64_t more) { chunks_ += more; }

  /// Arrives at the barrier. What was written before is seen by whoever passes it.
  void arrive();
  bool passed() const;
  /// Sleeps until the barrier is passed, at most so long.
  void sleep(std::chrono::microseconds longest);

 private:
  struct Header;
  struct Line;

  Header& header() const;
  Line& line(int rank) const;

  const std::shared_ptr<Segment> segment_;
  const int rank_, size_;
  std::uint64_t rounds_ = 0;
  std::uint64_t chunks_ = 0;
  std::uint32_t arrivals_ = 0;  // what the counter stands at when the barrier is passed
};

}  // namespace ronde
