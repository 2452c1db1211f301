// Memory of this process that the other ranks of its machine can reach: what `ronde.empty` gives.
//
// Blocks are cut out of segments. What a forked child inherits stays its parent's: it is the same
// memory, not a copy, so the child cuts its own blocks out of segments of its own. A segment of
// which nothing is in use goes back to the system, unless the heap keeps it for the next block: it
// keeps as much as is in use, and a little.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "node/segment.h"

namespace ronde {

class Heap {
 public:
  /// The heap of this process.
  static Heap& instance();

  /// Begins at a cache line. Throws UnavailableError if the system gives no shared memory, or not
  /// so much.
  std::byte* allocate(std::size_t bytes);
  void free(std::byte* block);

  struct Location {
    std::shared_ptr<Segment> segment;
    std::size_t offset;
  };
  /// Where these bytes are, if they are memory of this heap.
  std::optional<Location> find(const std::byte* data, std::size_t bytes) const;

 private:
  struct Region {
    std::shared_ptr<Segment> segment;
    std::map<std::size_t, std::size_t> free;  // offset and length; neighbours are joined
    std::map<std::size_t, std::size_t> used;
  };

  Heap();
  static void begin_anew();  // in a child

  std::byte* cut(Region& region, std::size_t bytes);
  void trim();

  mutable std::mutex mutex_;
  std::map<const std::byte*, Region> regions_;  // by where they begin
  std::map<const std::byte*, Region> parents_;  // of the process that this one was forked from
  std::size_t used_ = 0, reserved_ = 0;         // bytes
};

}  // namespace ronde
