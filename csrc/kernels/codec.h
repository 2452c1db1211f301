// Floats in fewer bits: what the kernels of the codecs (codec.inc, cast.inc) have in common.
//
// Nouns:
//   row     16 floats, whatever the width of a register is here
//   code    one float in a few bits
//   group   the fewest whole rows whose codes fill words of 32 bits. The codes of a lane, row after
//           row, are one number, the first in its lowest bits; the words of the lanes lie in turn,
//           so that packing needs shifts alone. The last group of a span is filled up with zeros.
//   block   some groups with one scale: a payload is, for each block, its scale (float32) and its
//           codes. Payloads of spans that were cut at the end of a block can be joined.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace ronde {

/// What random numbers depend on: the same draw gives the same numbers.
struct Draw {
  std::uint64_t key = 0;    // of the seed, the step and the tensor
  std::uint64_t first = 0;  // the position of the first element in the whole vector
};

enum class Store : std::uint8_t { copy, add };
enum class Rounding : std::uint8_t { nearest, stochastic };

/// What a scale is made of: the greatest absolute value, their mean, or the Euclidean norm.
enum class Norm : std::uint8_t { max, mean, l2 };

/// What a code can be: an integer of 1 to 8 bits (1: the sign alone), or a shorter float.
enum class Code : std::uint8_t { linear1, linear8 = 7, e4m3, float16, bfloat16 };

inline constexpr int kCodes = 11;

constexpr Code linear_code(int bits) { return static_cast<Code>(bits - 1); }

inline constexpr std::size_t kRow = 16;
inline constexpr std::size_t kMaxBlock = 4096;  // it has to stay in the first cache

/// The elements of a group. Random numbers are drawn for 8 rows at once, so it has at least these.
constexpr std::size_t group_of(int bits) { return kRow * std::max(8, 32 / std::gcd(bits, 32)); }

struct Blocks {
  std::size_t size = 0;  // in elements, whole groups, at most kMaxBlock
  Norm norm = Norm::max;
};

/// A code of fixed length, and how values are rounded to it: floats to nearest. The half types are
/// blocks of one value without a scale.
struct BlockCode {
  Code code;
  Blocks blocks;
  Rounding rounding = Rounding::nearest;
};

/// The length of a payload of blocks.
constexpr std::size_t block_bytes(int bits, std::size_t block, std::size_t count) {
  const std::size_t group = group_of(bits);
  return (count + block - 1) / block * sizeof(float) +
         (count + group - 1) / group * group * bits / 8;
}

/// Encodes `values`, with the residual unless it is null, which becomes what is left out.
using EncodeKernel = void (*)(Blocks blocks, const float* values, float* residual,
                              std::size_t count, Draw draw, std::byte* payload);

/// Decodes up to the first scale that no encoder writes; returns whether there was none.
using DecodeKernel = bool (*)(Blocks blocks, const std::byte* payload, float* out,
                              std::size_t count);

struct CodecKernels {
  std::array<EncodeKernel, 2> encode;  // by Rounding; null where a code has no such thing
  std::array<DecodeKernel, 2> decode;  // by Store
};

}  // namespace ronde
