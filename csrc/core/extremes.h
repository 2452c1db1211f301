// The least and the greatest of the ranks' fingerprints: if they are equal, all are.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ronde {

struct Extremes {
  std::uint64_t least, greatest;

  static Extremes of(std::uint64_t fingerprint) { return {fingerprint, fingerprint}; }

  void join(const Extremes& other) {
    least = std::min(least, other.least);
    greatest = std::max(greatest, other.greatest);
  }
  bool equal() const { return least == greatest; }
};

}  // namespace ronde
