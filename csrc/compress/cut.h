// The magnitude of the k-th largest of many values, exactly.
//
// A sample of the values gives two magnitudes between which it very likely lies. One pass over
// memory counts what is above both and keeps what lies between; among the few that are kept it is
// found by bisection on the bits. Where the sample has misled, or too many are alike, the bisection
// goes over memory.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace ronde {

/// What is to be sent: what has a magnitude greater than `above`, and what equals that and stands
/// before `end` in the whole vector.
struct Cut {
  std::int32_t above;
  std::uint64_t end = 0;
};

inline constexpr Cut kNotFinite = {.above = 0x7f7fffff};

/// The k largest of values + residual (which may be empty); of equal ones the first. `k` is at most
/// the number of values.
Cut cut_of(std::span<const float> values, std::span<const float> residual, std::size_t k,
           const KernelTable& kernels);

/// Marks what is to be sent of a span that begins at `first`, and all that is NaN or infinite, and
/// returns how many they are. The residual, unless it is empty, becomes values + residual.
std::size_t mark(std::span<const float> values, std::span<float> residual, const Cut& cut,
                 std::uint64_t first, std::uint32_t* marks, const KernelTable& kernels);

/// Whether there is neither NaN nor infinity.
bool all_finite(std::span<const float> values, const KernelTable& kernels = ronde::kernels());

}  // namespace ronde
