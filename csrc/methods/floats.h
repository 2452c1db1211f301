// Arrays of other types as arrays of float32, in which methods compute, and back: on the host, or
// on the GPU that holds both, with the same bits.
#pragma once

#include "methods/method.h"

namespace ronde {

/// Half types exactly, float64 rounded.
void to_floats(Ranks& ranks, ConstBuffer from, DType dtype, std::span<float> to);

/// Each rounded to its type.
void from_floats(Ranks& ranks, std::span<const float> from, DType dtype, Buffer to);

}  // namespace ronde
