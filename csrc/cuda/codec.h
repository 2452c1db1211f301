// All codes of fixed length on a device, the half types too: cuda/quantise.h and cuda/cast.h, with
// the same nouns.
#pragma once

#include <cstddef>
#include <span>

#include "core/reduction.h"
#include "cuda/quantise.h"

namespace ronde::cuda {

class Codec {
 public:
  Codec(Device& device, const BlockCode& code);

  /// Whether payloads have scales, which may be bad.
  bool has_scales() const { return !half_; }

  /// Enqueues the encoding of values. (The half types have no flag.)
  void encode(StreamHandle stream, const float* values, const Encoded& to) const;

  /// Enqueues the encoding of a sum of any number of parts. It has room for `to.count` floats in
  /// `total`.
  void encode(StreamHandle stream, const Sum& sum, const Encoded& to, float* total) const;

  /// Enqueues the decoding of a payload.
  void decode(StreamHandle stream, const void* payload, std::span<float> out, Store store,
              unsigned* bad_scale) const;

 private:
  void add(StreamHandle stream, const Sum& sum, std::span<float> total) const;
  void scale(StreamHandle stream, const Reduction& by, float* values, std::size_t count) const;

  Device& device_;
  const BlockCode code_;
  const bool half_;
};

}  // namespace ronde::cuda
