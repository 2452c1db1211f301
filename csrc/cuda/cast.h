// float16 and bfloat16 as payloads on a device, with the bytes of the processor's
// (compress/cast.h); and float64 as float32, with those of its static_cast.
//
// All memory is the device's, aligned to its elements (payloads to 2 bytes). It is as fast as the
// memory where vectors and payload are aligned to 16 bytes, or whole packets of 4 elements begin at
// the same element of all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "kernels/codec.h"

namespace ronde::cuda {

/// Nothing overlaps.
struct CastEncoding {
  Code code;  // float16 or bfloat16
  const float* values;
  float* residual;  // added to the values, then what the payload leaves out of them; or null
  std::size_t count;
  std::byte* payload;         // 2 * count bytes
  std::uint32_t* not_finite;  // or null
};

/// Enqueues the encoding. *not_finite becomes 1 if any value that is decoded will be NaN or
/// infinite, be it that it was so or that it overflows in the half type; otherwise it stays.
void encode_cast(Device& device, StreamHandle stream, const CastEncoding& encoding);

struct CastDecoding {
  Code code;
  const std::byte* payload;  // 2 * count bytes: any are a payload
  float* out;
  std::size_t count;
  Store store;
};

/// Enqueues the decoding, in which the values are stored in `out` or added to it.
void decode_cast(Device& device, StreamHandle stream, const CastDecoding& decoding);

/// Enqueues the conversion of so many values, rounded to nearest even.
void narrow(Device& device, StreamHandle stream, const double* from, float* to, std::size_t count);
/// The way back.
void widen(Device& device, StreamHandle stream, const float* from, double* to, std::size_t count);

}  // namespace ronde::cuda
