// Block codecs on a device, with the bits of the processor's (kernels/codec.h): the linear codes of
// 1 to 8 bits, and e4m3 in blocks of 128.
//
// All pointers are to memory of the device. Values are aligned to 4 bytes, and so are payloads.
// Flags are words that become 1, and are never cleared here. Which NaN an addition gives is the
// hardware's, as is what a payload is decoded to that has a scale which no encoder writes.
#pragma once

#include <cstddef>
#include <span>

#include "cuda/device.h"
#include "kernels/codec.h"

namespace ronde::cuda {

/// What is encoded: the sum of parts, in order, times a factor.
struct Sum {
  static constexpr std::size_t kNone = ~std::size_t{0};

  std::span<const void* const> parts;  // 1 to 8 payloads of this code, each of all values
  std::size_t own = kNone;             // the number of the part that is no payload but values
  float factor = 1;
  unsigned* bad_scales = nullptr;  // a flag for each part: it has a scale that no encoder writes
};

/// What comes of it. Nothing overlaps a part or anything else, but as is said here.
struct Encoded {
  std::size_t count;               // values
  void* payload;                   // block_bytes() of the code
  float* residual = nullptr;       // is added, and becomes what is left out
  float* decoded = nullptr;        // becomes what was sent; may be where the sum's own part is
  unsigned* not_finite = nullptr;  // flag: a block has NaN or infinity, and is sent as NaN
  Draw draw = {};                  // for stochastic rounding
};

/// Enqueues the encoding of a sum, in one pass: what the owner of a segment does in
/// collective/compressed_allreduce.cc. The residual counts in units of a part: it is multiplied by
/// the factor before, and divided after. With a factor of 0 there must be none. Throws
/// ArgumentError if a device has no such code, or there are too many parts.
void encode(Device& device, StreamHandle stream, const BlockCode& code, const Sum& sum,
            const Encoded& to);

/// Enqueues the encoding of values.
inline void encode(Device& device, StreamHandle stream, const BlockCode& code, const float* values,
                   const Encoded& to) {
  const void* const part = values;
  encode(device, stream, code, Sum{.parts = {&part, 1}, .own = 0}, to);
}

/// Enqueues the decoding of a payload of `count` values. The flag, unless it is null, is for a
/// scale that no encoder writes.
void decode(Device& device, StreamHandle stream, const BlockCode& code, const void* payload,
            std::span<float> out, Store store, unsigned* bad_scale);

}  // namespace ronde::cuda
