// What the threads of a block do together. Included by kernel files, after device.h.
#pragma once

#include "device.h"
#include "selection.h"

namespace ronde::cuda {

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

// Selection -----------------------------------------------------------------------------------

inline constexpr u32 kGreatestFinite = 0x7f7fffff;

/// The bits of |x|: they order like integers, infinity and then NaN behind all others.
DEVICE u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffff; }

/// The lowest bit of a digit. One digit after another is found, each by a histogram of those
/// magnitudes that begin like the one that is looked for.
template <int kDigit>
inline constexpr u32 kLowest = kDigit == 0   ? 20
                               : kDigit == 1 ? 10
                                             : 0;

template <int kDigit>
inline constexpr u32 kBins = kDigit == 0 ? kMostBins : 1024;

/// The first digit of infinity. Those from here on are of what is not finite.
inline constexpr u32 kInfinite = 0x7f800000 >> kLowest<0>;

/// When all digits are known. All that is not finite is selected.
DEVICE Cut cut_at(Known known) {
  return known.rank == 0 ? Cut{kGreatestFinite, 0} : Cut{known.magnitude, known.rank};
}

template <int kDigit>
DEVICE u32 digit_of(u32 magnitude) {
  return magnitude >> kLowest<kDigit> & (kBins<kDigit> - 1);
}

/// Whether a magnitude begins with the digits before this one that are known.
template <int kDigit>
DEVICE bool begins_like(u32 magnitude, Known known) {
  if constexpr (kDigit == 0)
    return true;
  else
    return magnitude >> kLowest<kDigit - 1> == known.magnitude >> kLowest<kDigit - 1>;
}

/// The next digit, by the histogram. All threads of a block call it, with the same arguments, and
/// have the result.
template <int kDigit>
DEVICE Known with_digit(Known known, const u32* bins) {
  constexpr u32 kEach = kBins<kDigit> / kThreads;
  __shared__ Known found;
  if (known.rank == 0) return known;
  // The first thread has the last bins.
  const u32 last = kBins<kDigit> - 1 - threadIdx.x * kEach;
  u32 counts[kEach], mine = 0;
  UNROLL for (u32 i = 0; i < kEach; ++i) mine += counts[i] = bins[last - i];
  u32 before = sum_of_block(mine).before;
  if (before < known.rank && known.rank - before <= mine) {
    UNROLL for (u32 i = 0; i < kEach; ++i) {
      if (before < known.rank && known.rank - before <= counts[i]) {
        const u32 digit = last - i;
        const bool finite = kDigit > 0 || digit < kInfinite;
        found = {known.magnitude | digit << kLowest<kDigit>, finite ? known.rank - before : 0};
      }
      before += counts[i];
    }
  }
  __syncthreads();
  known = found;
  __syncthreads();
  return known;
}

}  // namespace ronde::cuda
