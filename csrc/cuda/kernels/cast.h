// What the kernels of cast.cu are given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// cast_encode_<type>
struct EncodeCasts {
  const float* values;
  float* residual;  // or null
  u16* payload;
  u32* not_finite;  // or null
  u64 count;
};

/// cast_decode_<type>, cast_decode_add_<type>
struct DecodeCasts {
  const u16* payload;
  float* out;
  u64 count;
};

/// cast_narrow, cast_widen: from float64 to float32, and back
struct ConvertFloats {
  const void* from;
  void* to;
  u64 count;
};

}  // namespace ronde::cuda
