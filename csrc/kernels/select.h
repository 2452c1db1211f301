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
/// them), and returns how many they are. `residual` may be null; `sums`, unless null, gets values +
/// residual and may be the same memory.
using MarkKernel = std::size_t (*)(const float* values, const float* residual, float* sums,
                                   std::size_t count, std::int32_t above, std::uint32_t* marks);

/// Copies the marked values to `out`, in order.
using PickKernel = void (*)(const float* values, std::size_t count, const std::uint32_t* marks,
                            float* out);

/// The same, and leaves zeros behind.
using TakeKernel = void (*)(float* values, std::size_t count, const std::uint32_t* marks,
                            float* out);

/// Writes the places of the marks, of at most 65536 elements, as integers of 16 bits, and returns
/// where the last one ends.
using PlaceKernel = std::byte* (*)(std::size_t count, const std::uint32_t* marks, std::byte* out);

struct SelectKernels {
  MarkKernel mark;
  PickKernel pick;
  TakeKernel take;
  PlaceKernel places;
};

}  // namespace ronde
