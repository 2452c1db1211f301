// What the threads of a block do together. Included by kernel files, after device.h.
#pragma once

#include "device.h"

namespace ronde::cuda {
namespace {

inline constexpr u32 kWarps = kThreads / kWarp;  // of a block

DEVICE u32 lane() { return threadIdx.x % kWarp; }
DEVICE u32 warp() { return threadIdx.x / kWarp; }
DEVICE u32 lanes_below() { return (u32{1} << lane()) - 1; }

/// The sum of this lane's number and those of the lanes before it.
DEVICE u32 sum_up_to_lane(u32 x) {
  UNROLL for (u32 by = 1; by < kWarp; by *= 2) {
    const u32 other = __shfl_up_sync(kAllLanes, x, by);
    if (lane() >= by) x += other;
  }
  return x;
}

DEVICE u32 sum_of_warp(u32 x) {
  UNROLL for (u32 by = kWarp / 2; by > 0; by /= 2) x += __shfl_xor_sync(kAllLanes, x, by);
  return x;
}

/// The numbers of the threads before this one, and of all.
struct BlockSum {
  u32 before, total;
};

/// All threads call it, as often as they like.
DEVICE BlockSum sum_of_block(u32 x) {
  __shared__ u32 of_warps[kWarps];
  const u32 up_to_here = sum_up_to_lane(x);
  if (lane() == kWarp - 1) of_warps[warp()] = up_to_here;
  __syncthreads();
  BlockSum sum{up_to_here - x, 0};
  UNROLL for (u32 w = 0; w < kWarps; ++w) {
    const u32 of_warp = of_warps[w];
    sum.total += of_warp;
    if (w < warp()) sum.before += of_warp;
  }
  __syncthreads();
  return sum;
}

}  // namespace
}  // namespace ronde::cuda
