// How many of some values a ratio is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "core/error.h"

namespace ronde {

/// Rounded, and at least one unless there is none.
inline std::size_t share(double ratio, std::size_t count) {
  const auto wanted = std::nearbyint(ratio * static_cast<double>(count));
  return std::min(count, std::max<std::size_t>(1, static_cast<std::size_t>(wanted)));
}

/// Throws ArgumentError unless 0 < ratio <= 1.
inline double checked_ratio(double ratio) {
  if (!(ratio > 0 && ratio <= 1))
    throw ArgumentError("a ratio must be above 0 and at most 1, not " + std::to_string(ratio));
  return ratio;
}

}  // namespace ronde
