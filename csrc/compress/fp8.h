// Floats of 8 bits: E4M3 of the Open Compute Project (4 bits of exponent, 3 of mantissa, up to
// 448), in blocks of 128 with a scale of their own.
//
// The scale is the least power of two for which the greatest |x| is at most 448 scales. So nothing
// but the rounding to 4 significant bits changes a value: |x - decoded| is at most |x| / 16 or
// 2^-10 scales, whichever is larger; sent + residual = input exactly; and what was decoded is
// encoded without a further change. A scale that fits 448 exactly would gain nothing but half a
// binade at the lower end.
//
// A block that holds NaN or infinity comes out as NaN in all of its values. One whose scale would
// be no normal number (below 2^-126) is sent as zeros, and stays in the residual.
#pragma once

#include "compress/fixed_length.h"

namespace ronde {

class Fp8 final : public FixedLength {
 public:
  static constexpr std::size_t kBlock = 128;

  explicit Fp8(const KernelTable& kernels = ronde::kernels())
      : FixedLength(kernels, {Code::e4m3, {.size = kBlock}}) {}

  std::size_t capacity(std::size_t count) const override { return block_bytes(8, kBlock, count); }
  bool unbiased() const override { return false; }
};

}  // namespace ronde
