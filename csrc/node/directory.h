// Which memory of a rank the others can reach without a stage.
//
// A rank enters the segments of its operands (heap.h) into its part of the directory, where the
// others find their addresses. The notes of phase 0 have the location of each operand. A segment
// that is new to the ranks is opened by all of them, and used only if all have succeeded. Every
// rank knows that, because all see the same notes and the same votes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "node/segment.h"

namespace ronde {

/// An address in the memory that a rank has entered. `entry` 0 is none.
struct Location {
  std::uint16_t entry = 0;
  std::uint16_t edition = 0;  // of the entry, which may be used again
  std::uint32_t unused = 0;
  std::uint64_t offset = 0;

  explicit operator bool() const { return entry != 0; }
};

class Directory {
 public:
  static std::size_t bytes_for(int ranks);

  /// `shared` is memory of bytes_for(size) bytes that all ranks see, all zero in the beginning.
  Directory(std::byte* shared, int rank) : shared_(shared), rank_(rank) {}

  /// Where an operand of this rank is, for its note; none if others cannot reach it.
  Location enter(ConstBuffer operand);

  /// Whether the ranks have voted on the segment of a location.
  bool settled(int rank, Location location) const;
  /// Opens a segment that is not settled, and returns whether that was possible.
  bool open(int rank, Location location);
  /// Settles all segments that have been opened, by the result of the vote.
  void settle(bool reachable);

  /// The memory at a settled location, or null if not all ranks can reach it.
  std::byte* reach(int rank, Location location) const;

 private:
  struct Entry;
  struct Own {
    std::weak_ptr<Segment> segment;
    std::uint16_t edition = 0;
  };
  struct Known {
    std::uint16_t edition;
    std::shared_ptr<Segment> segment;  // null if not all ranks can reach it
  };

  Entry& entry(int rank, std::uint16_t number) const;

  std::byte* const shared_;
  const int rank_;
  std::vector<Own> own_;                                   // entry n is own_[n - 1]
  std::map<std::pair<int, std::uint16_t>, Known> known_;   // by rank and entry
  std::map<std::pair<int, std::uint16_t>, Known> opened_;  // not yet voted on
};

}  // namespace ronde
