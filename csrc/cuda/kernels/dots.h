// What the kernels of dots.cu are given, and in which order they add.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// Elements of a block, which half a warp adds, and blocks of a group, which a block of threads
/// has at a time.
inline constexpr u64 kDotBlock = 1024, kDotGroup = 16;

struct DotSums {
  double left_left, left_right, right_right;
};

/// dot_<dtype>
struct DotProducts {
  const void* left;
  const void* right;
  u64 count;
  u64 groups;
  DotSums* sums;  // of each group
};

/// dot_total, for one block
struct DotTotal {
  const DotSums* sums;
  u64 groups;
  DotSums* total;
};

}  // namespace ronde::cuda
