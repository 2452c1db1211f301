// What the kernels of pack.cu are given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// What one warp copies at most, at a time.
inline constexpr u32 kPackUnit = 8192;

/// One of the arrays of a bucket.
struct PackedArray {
  u8* data;
  u64 bytes;
  u64 offset;      // in the bucket
  u64 first_unit;  // how many units the arrays before it have
};

/// pack, unpack
struct Pack {
  const PackedArray* arrays;  // in memory of the device
  u32 count;
  u64 units;  // of all arrays
  u8* bucket;
};

}  // namespace ronde::cuda
