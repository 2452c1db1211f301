// What the kernels of quantise.cu are given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// Parts of a sum, at most.
inline constexpr int kMostParts = 8;

/// Rows (of 16 values) of which a thread has one value each, at most: of the linear codes, and of
/// e4m3, whose blocks are short.
inline constexpr u32 kMostRows = 32, kMostRowsE4M3 = 8;

/// A block of `size` values is shared out to 1 << doublings half warps, which have `rows` of its
/// rows each, whole groups, the last of them maybe fewer.
struct BlockLayout {
  u32 size, doublings, rows;
};

enum class NormOf : u32 { max, mean, l2 };

/// encode_<code>: encodes the sum of parts, in order, times a factor.
struct Encode {
  BlockLayout layout;
  const void* parts[kMostParts];  // payloads, but for `own`, which are values
  int part_count, own;            // own: -1 if none are
  float factor;                   // the residual is multiplied by it before, divided after
  float* residual;                // or null
  float* decoded;                 // what was sent, or null; may be the values
  u32* payload;
  u64 count;
  u64 key, first;  // of the random numbers
  NormOf norm;
  bool stochastic;
  u32* not_finite;  // becomes 1 if a value with its residual is not, or null
  u32* bad_scales;  // of each part: becomes 1 if it has a scale that no encoder writes; or null
};

/// decode_<code>
struct Decode {
  BlockLayout layout;
  const u32* payload;
  float* out;
  u64 count;
  bool adds;
  u32* bad_scale;
};

}  // namespace ronde::cuda
