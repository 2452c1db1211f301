// Random positions: a vector is cut into parts, as even as possible, and one position of each is
// drawn by a key and the number of the part.
#pragma once

#include <cstdint>

namespace ronde {

struct RandomPositions {
  std::uint64_t count = 0, parts = 0;  // both below 2^32
  std::uint64_t key = 0;

  std::uint64_t begin(std::uint64_t part) const { return part * count / parts; }
  std::uint64_t part_of(std::uint64_t position) const {
    return ((position + 1) * parts - 1) / count;
  }
  std::uint64_t drawn(std::uint64_t part) const {
    const std::uint64_t first = begin(part);
    return first + draw_below(begin(part + 1) - first, part);
  }

 private:
  /// A number below `limit`, by SplitMix64 (Steele, Lea and Flood 2014).
  std::uint64_t draw_below(std::uint64_t limit, std::uint64_t number) const {
    std::uint64_t x = key + (number + 1) * 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return ((x ^ (x >> 31)) >> 32) * limit >> 32;
  }
};

}  // namespace ronde
