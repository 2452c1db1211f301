// What the ranks of one machine see of each other: a segment with notes and stages of all ranks,
// and a barrier.
//
//   note    what a rank writes in phase 0: the fingerprint of its call, what the others must know
//           of it, and the data itself where it is short; two, used in turn
//   stage   where a rank writes a chunk of its data for the others to read; four, used in turn
//   result  where the ranks write the slices they have reduced; four, used in turn
//   ticket  which rank does the next piece of work that any of them can do
//
// The barrier is one counter: the n-th time that all ranks have arrived it is n times their number.
// The last to arrive wakes those that sleep, if any do.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "node/directory.h"
#include "node/segment.h"

namespace ronde {

/// What a rank writes in phase 0. All that a short blocking call needs is in its first cache line.
struct Note {
  std::uint64_t fingerprint;
  std::uint64_t rows;  // how much the rank has, where ranks may have different amounts
  Location input;      // where others can reach its operands, if they can
  Location output;
  std::byte
      payload[16];  // and what follows in memory: Board::kShortBytes in all, or more for many ranks
};
static_assert(sizeof(Note) == 64);

class Board {
 public:
  static constexpr std::size_t kStageBytes = 256 << 10;
  /// Of each rank, and so many results. Together they are as long as a second-level cache: what has
  /// gone from there to the cache that cores share is read faster by the others.
  static constexpr std::size_t kStages = 4;
  /// What fits into a note whatever the number of ranks.
  static constexpr std::size_t kShortBytes = 4096;

  static std::size_t bytes_for(int ranks);

  /// `segment` is that of all ranks, of bytes_for(size) bytes.
  Board(std::shared_ptr<Segment> segment, int rank, int size);

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// The handshake: each rank signs with a word that all know, and sees whether all have signed.
  /// Only ranks that truly share the memory see each other's signature.
  void sign(std::uint64_t word);
  bool all_signed(std::uint64_t word) const;

  /// Begins a round of phase 0: this rank's note, to be filled in before it arrives at the barrier,
  /// with no locations yet.
  Note& new_note();
  /// What a rank has written in this round, once the barrier is passed.
  const Note& note(int rank) const { return note_of(rank); }

  /// A vote: each rank gives its voice before a barrier, and knows all voices after it.
  void vote(bool voice);
  bool unanimous() const;

  /// The stages of all ranks for one chunk are contiguous.
  std::byte* stage(int rank, std::uint64_t chunk) const;
  std::byte* result(std::uint64_t chunk) const;

  /// The chunks that have gone through the stages so far: they are used in turn across calls too.
  std::uint64_t chunks() const { return chunks_; }
  void count_chunks(std::uint64_t more) { chunks_ += more; }

  /// Whether what is staged for this chunk bypasses the caches. Cores that share a cache read
  /// faster what is in it; others read faster what is in memory than what is in each other's
  /// caches. Which is the case shows as some chunks go either way, and rank 0 compares (`Reading`).
  bool streams(std::uint64_t chunk) const;
  class Reading;

  /// Work in `pieces` that any rank can do: each piece is given out once, and then numbers from
  /// `pieces` on. All ranks begin the same work, and each draws until it gets such a number, once.
  void begin_tickets(std::uint64_t pieces);
  std::uint64_t draw_ticket();

  /// From now on no rank passes: a late rank must not touch memory that the others have given up.
  void give_up();

  /// Arrives at the barrier. Ranks that pass it see what was written before.
  void arrive();
  bool passed() const;
  /// Sleeps until the barrier is passed, at most so long.
  void sleep(std::chrono::microseconds longest);

  /// The memory of ranks that others can reach without a stage.
  Directory& directory() { return directory_; }

 private:
  struct Header;
  /// Of every kSampled chunks the first goes through the caches, and the second around them.
  static constexpr std::uint64_t kSampled = 32;

  Header& header() const { return *reinterpret_cast<Header*>(segment_->data()); }
  Note& note_of(int rank) const;

  const std::shared_ptr<Segment> segment_;
  const int rank_, size_;
  const std::size_t note_bytes_;
  std::byte *notes_, *stages_, *results_;
  std::uint64_t rounds_ = 0;
  std::uint64_t chunks_ = 0;
  std::uint64_t first_ticket_ = 0, next_first_ticket_ = 0;
  std::uint32_t arrivals_ = 0;  // the counter when the barrier is passed
  // The last sample that went through the caches: what of it was read, and how long that took.
  std::size_t cached_bytes_ = 0;
  std::chrono::nanoseconds cached_time_{};
  Directory directory_;
};

/// While it lives, rank 0 reads what the others have staged for a chunk. Two chunks are compared
/// only where it has read as much of both, and enough to tell.
class Board::Reading {
 public:
  Reading(Board& board, std::uint64_t chunk);
  ~Reading();
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

  void add(std::size_t bytes) { bytes_ += bytes; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kEnough = 64 << 10;

  Board& board_;
  const std::uint64_t place_;  // among the sampled chunks
  const bool counts_;
  std::size_t bytes_ = 0;
  Clock::time_point since_;
};

}  // namespace ronde
