// Which of many floats are large: what the kernel of the sparse compressors (select.inc) works on.
//
// Nouns:
//   magnitude  the bits of |x|: they order like integers, infinity and then NaN behind all others
//   marks      a bit for each element, the first in the lowest bit of a word of 32; those behind
//              the last element are 0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace ronde {

inline constexpr std::size_t kMarks = 32;  // in a word

constexpr std::size_t mark_words(std::size_t count) { return (count + kMarks - 1) / kMarks; }

inline std::int32_t magnitude(float x) { return std::bit_cast<std::int32_t>(x) & 0x7fffffff; }

/// Marks the elements of values + residual whose magnitude is greater than `above` (-1: all of
/// them). `residual` may be null; `sums`, unless null, gets values + residual and may be the same
/// memory.
using MarkKernel = void (*)(const float* values, const float* residual, float* sums,
                            std::size_t count, std::int32_t above, std::uint32_t* marks);

}  // namespace ronde
