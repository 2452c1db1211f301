// Compressors of one kernel, whose payload has a length that follows from the number of values.
#pragma once

#include "compress/compressor.h"
#include "kernels/kernels.h"

namespace ronde {

class FixedLength : public Compressor {
 public:
  std::size_t grain() const override { return blocks_.size; }
  std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::byte* payload) const override;
  void decode(std::span<const std::byte> payload, std::span<float> out, Store store) const override;

 protected:
  FixedLength(const CodecKernels& codec, Blocks blocks, Rounding rounding = Rounding::nearest)
      : codec_(codec), blocks_(blocks), rounding_(rounding) {}

 private:
  const CodecKernels& codec_;
  Blocks blocks_;
  Rounding rounding_;
};

}  // namespace ronde
