// What the kernels of shared_scale.cu are given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// Integers with a scale for each block: in two arrays, or in a payload, where the integers of a
/// block follow its scale.
struct ScaledBlocks {
  u64 count;   // elements
  u32 block;   // elements that share a scale: a multiple of 128
  bool steps;  // scales are steps, not the greatest magnitudes
  float levels;
  u8* scales;  // float32, so many bytes apart
  u64 between_scales;
  u8* integers;  // so many bytes from those of one block to the next
  u64 between_integers;
  bool packed;  // integers lie in aligned words, and so do floats in 16 bytes
};

/// shared_scale_maxima: stores the scales.
struct Maxima {
  ScaledBlocks blocks;
  const float* values;
  const float* residual;  // or null
  u32 team;               // warps for a block, of up to kWarpPart elements each: 1, 2, 4 or 8
};

/// What a warp looks through at once.
inline constexpr u32 kWarpPart = 512;

/// shared_scale_quantise_<integer>_<rounding>: stores the integers.
struct Quantise {
  ScaledBlocks blocks;
  const float* values;
  float* residual;  // or null
  u64 key, first;   // of the random numbers
};

/// shared_scale_dequantise_<integer>_<store>
struct Dequantise {
  ScaledBlocks blocks;
  double factor;
  float* out;
  u32* wrong;  // or null: becomes 1 where a step or an integer is none that is ever stored
};

}  // namespace ronde::cuda
