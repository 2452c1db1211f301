// What the kernel of finite.cu is given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// What one warp looks at at most, at a time.
inline constexpr u32 kFiniteUnit = 8192;

/// One of the arrays.
struct FiniteArray {
  const u8* data;
  u64 bytes;
  u64 first_unit;  // how many units the arrays before it have
  u64 limit;       // the greatest magnitude: the bits of an element without its sign
  u32 size;        // bytes of an element: 2, 4, 8
};

/// finite
struct Finite {
  const FiniteArray* arrays;  // in memory of the device
  u32 count;
  u64 units;  // of all arrays
  u32* beyond;
};

}  // namespace ronde::cuda
