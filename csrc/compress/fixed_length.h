// Compressors of one kernel, whose payload has a length that follows from the number of values.
#pragma once

#include "compress/compressor.h"
#include "kernels/kernels.h"

namespace ronde {

class FixedLength : public Compressor {
 public:
  /// The words of an error.
  static constexpr const char* kBadScale = "the payload holds a scale that no encoder writes";
  /// Throws ArgumentError unless a payload of so many values has so many bytes.
  static void check_length(const Compressor& compressor, std::size_t count, std::size_t bytes);

  std::size_t grain() const override { return code_.blocks.size; }
  const BlockCode* block_code() const override { return &code_; }
  std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::byte* payload) const override;
  void decode(std::span<const std::byte> payload, std::span<float> out, Store store) const override;

 protected:
  FixedLength(const KernelTable& kernels, const BlockCode& code)
      : codec_(kernels.codec(code.code)), code_(code) {}

 private:
  const CodecKernels& codec_;
  const BlockCode code_;
};

}  // namespace ronde
