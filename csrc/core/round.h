// Sizes in whole units of memory.
#pragma once

#include <cstddef>

namespace ronde {

inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kPage = 4096;

/// The next multiple of `unit`.
constexpr std::size_t rounded(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace ronde
