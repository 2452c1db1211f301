// The codes of the block codecs: compress/quantiser.h and compress/fp8.h say what they are,
// kernels/codec.inc has the same for the processor.
#pragma once

#include "device.h"

namespace ronde::cuda {

inline constexpr u32 kNan = 0x7fc00000, kInfinity = 0x7f800000, kSign = 0x80000000;
inline constexpr float kLeastNormal = 0x1p-126f;

/// A code in the lowest bits, and the value that it stands for.
struct Coded {
  u32 code;
  float value;
};

/// Multiples of a step, which is the scale.
template <int kWidth>
class Linear {
 public:
  static constexpr int kBits = kWidth;
  static constexpr bool kHasNorm = true, kStochastic = true;
  static constexpr int kGroup = kBits % 4 == 0 ? 8 : kBits % 2 == 0 ? 16 : 32;  // in rows

  /// For a block of this norm, the greatest value of which is `max`.
  static DEVICE float scale(float max, float norm) {
    const float step = fminf(norm / kLevels, kLargest);
    return max < kLeastNormal || step < kLeastNormal ? 0 : step;
  }

  static DEVICE bool is_scale(float step) {
    return __float_as_uint(step) == 0 || (step >= kLeastNormal && step <= kLargest);
  }

  explicit DEVICE Linear(float step)
      : step_(step), inverse_(step == 0 ? 0 : 1 / step), mask_(step == step ? kMask : 0) {}

  DEVICE Coded encode(float x, float noise, bool stochastic) const {
    const float q = fmaxf(fminf(x * inverse_, kLevels), -kLevels);
    if constexpr (kBits == 1) {
      const u32 code = __float_as_uint(stochastic ? q + 2 * noise : x) >> 31 & mask_;
      return {code, decode(code)};
    }
    // Rounds to the nearest integer, ties to even, and leaves it in the lowest bits.
    constexpr float kRound = 0x1.8p23f;
    const float rounded = q + noise + kRound;
    return {__float_as_uint(rounded) & mask_, (rounded - kRound) * step_};
  }

  /// What is above the code is ignored.
  DEVICE float decode(u32 code) const {
    if constexpr (kBits == 1) return __uint_as_float(__float_as_uint(step_) | code << 31);
    // As the lowest bits of a float, with the sign bit flipped: so without a sign.
    constexpr u32 kHalf = 1u << (kBits - 1);
    const float raised = __uint_as_float((code & kMask) ^ (0x4b000000 | kHalf));
    return (raised - (0x1p23f + kHalf)) * step_;
  }

 private:
  static constexpr u32 kMask = (1u << kBits) - 1;
  static constexpr float kLevels = kBits == 1 ? 1 : static_cast<float>(kMask >> 1);
  static constexpr float kLargest = 0x1.fffffcp127f / kLevels;  // kLevels times that is finite

  float step_, inverse_;
  u32 mask_;  // nothing if the block is not finite
};

/// The 8-bit float.
class E4M3 {
 public:
  static constexpr int kBits = 8;
  static constexpr bool kHasNorm = false, kStochastic = false;
  static constexpr int kGroup = 8;

  /// The least power of two for which the greatest value is at most 448.
  static DEVICE float scale(float max, float) {
    constexpr u32 kBelow448 = 0x1fffff;  // carries where the mantissa exceeds 1.75
    const u32 exponent = (__float_as_uint(max) + kBelow448) >> 23;
    return exponent <= 8 ? 0 : __uint_as_float((exponent - 8) << 23);
  }

  static DEVICE bool is_scale(float scale) {
    const u32 bits = __float_as_uint(scale);
    return (bits & 0x007fffff) == 0 && bits <= 247u << 23;
  }

  explicit DEVICE E4M3(float scale)
      : scale_(scale),
        inverse_(scale == 0 ? 0 : 1 / scale),
        largest_(__float_as_uint(fminf(448, 0x1.ep127f * inverse_))),
        mask_(scale == scale ? 0xff : 0) {}

  DEVICE Coded encode(float x, float, bool) const {
    const u32 bits = __float_as_uint(x * inverse_), given = bits & ~kSign;
    const u32 magnitude = given < largest_ ? given : largest_;
    const u32 nearest = magnitude + 0x7ffff + (magnitude >> 20 & 1);  // ties to even
    // Adding 2^14 rounds a subnormal to a multiple of 2^-9.
    const u32 subnormal = __float_as_uint(__uint_as_float(magnitude) + 0x1p14f) - 0x46800000;
    const u32 finite = magnitude < kLeast ? subnormal : (nearest - kRebias) >> 20;
    const u32 code = (finite | (bits & kSign) >> 24) & mask_;
    return {code, decode(code)};
  }

  DEVICE float decode(u32 code) const {
    // As the bits of a float its exponent is 120 too low, also where it is subnormal.
    const u32 sign = (code & 0x80) << 24, magnitude = (code & 0x7f) << 20;
    const float value = __uint_as_float(magnitude | sign) * 0x1p120f;
    return (magnitude == 0x07f00000 ? __uint_as_float(kNan) : value) * scale_;
  }

 private:
  static constexpr u32 kRebias = 120u << 23;  // from exponents about 7 to about 127
  static constexpr u32 kLeast = 121u << 23;   // 2^-6, the least that is normal

  float scale_, inverse_;
  u32 largest_;  // the largest float32 must not be rounded up to infinity
  u32 mask_;
};

}  // namespace ronde::cuda
