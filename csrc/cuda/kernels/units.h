// Arrays of any length that warps share: a long one is cut into units, so that many warps take
// part, and short ones take a warp each. Included by kernel files, after device.h.
#pragma once

#include "device.h"

namespace ronde::cuda {
namespace {

DEVICE u32 lane() { return threadIdx.x % kWarp; }

/// The array that has this unit, of those in a table, each of which has its `first_unit`: the last
/// one that does not begin after it. Every lane looks at the first array of one part of those that
/// are left.
template <class Array>
DEVICE u32 array_of(const Array* arrays, u32 count, u64 unit) {
  u32 low = 0, left = count;
  ROLLED while (left > 1) {
    const u32 part = (left + kWarp - 1) / kWarp, at = lane() * part;
    const bool begun = at < left && arrays[low + at].first_unit <= unit;
    const u32 before = (static_cast<u32>(__popc(__ballot_sync(kAllLanes, begun))) - 1) * part;
    low += before;
    left = left - before < part ? left - before : part;
  }
  return low;
}

}  // namespace
}  // namespace ronde::cuda
