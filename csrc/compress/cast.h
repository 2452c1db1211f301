// The half types as payload: two bytes for each value, rounded to nearest even.
//
//   bfloat16   8 significant bits, the exponents of float32
//   float16    11 significant bits, up to 65504; from 65520 on a value becomes infinity
//
// What is NaN or infinite in the half type is passed on as such, and leaves no residual. Otherwise
// sent + residual = input exactly.
#pragma once

#include "compress/fixed_length.h"

namespace ronde {

class Cast final : public FixedLength {
 public:
  /// `code` is Code::float16 or Code::bfloat16.
  explicit Cast(Code code, const KernelTable& kernels = ronde::kernels())
      : FixedLength(kernels, {code, {.size = 1}}), overflows_(code == Code::float16) {}

  std::size_t capacity(std::size_t count) const override { return 2 * count; }
  bool overflows() const override { return overflows_; }
  bool unbiased() const override { return false; }

 private:
  const bool overflows_;
};

}  // namespace ronde
