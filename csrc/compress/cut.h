// Where the k largest of many values end, exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace ronde {

/// What is in: a magnitude greater than `above`, and the first so many that are equal to it.
struct Cut {
  std::int32_t above;
  std::size_t ties = 0;
};

/// The cut of the k largest, of equal ones the first, and of all that is NaN or infinite. More than
/// k values are given, and all have a magnitude greater than `low`.
Cut cut_of(std::span<const float> values, std::size_t k, std::int32_t low,
           const KernelTable& kernels);

/// Whether there is neither NaN nor infinity.
bool all_finite(std::span<const float> values, const KernelTable& kernels = ronde::kernels());

}  // namespace ronde
