// Which of many floats are large: what the kernels of the sparse compressors (select.inc) work on.
//
// Nouns:
//   magnitude  the bits of |x|: they order like integers, infinity and then NaN behind all others
#pragma once

#include <cstddef>
#include <cstdint>

namespace ronde {

inline constexpr std::int32_t kBelowAll = -1;                // no magnitude is less
inline constexpr std::int32_t kGreatestFinite = 0x7f7fffff;  // behind it come infinity and NaN

/// In memory for entries, behind the last one.
inline constexpr std::size_t kSpare = 16;

/// Takes the elements of values + residual whose magnitude is greater than `above`, at least
/// kBelowAll: stores their positions, the first element's being `first`, and what they are, in
/// order, and returns how many they are. Up to kSpare more behind them may be overwritten. `left`
/// gets the others, and 0 where one was taken; it may be the same memory as an input. `residual`
/// may be null, and then `left` too.
using TakeKernel = std::size_t (*)(const float* values, const float* residual, float* left,
                                   std::size_t count, std::int32_t above, std::uint32_t first,
                                   std::uint32_t* positions, float* taken);

/// How many magnitudes are greater than `above`, at least kBelowAll.
using CountKernel = std::size_t (*)(const float* values, std::size_t count, std::int32_t above);

struct SelectKernels {
  TakeKernel take;
  CountKernel count;
};

}  // namespace ronde
