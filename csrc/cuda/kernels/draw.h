// Random positions as compress/positions.h has them. Included by kernel files, after device.h.
#pragma once

#include "device.h"

namespace ronde::cuda {

struct RandomPositions {
  u64 count, parts;  // both below 2^32
  u64 key;

  DEVICE u64 begin(u64 part) const { return part * count / parts; }
  DEVICE u64 part_of(u64 position) const { return ((position + 1) * parts - 1) / count; }
  DEVICE u64 drawn(u64 part) const {
    const u64 first = begin(part);
    return first + draw_below(begin(part + 1) - first, part);
  }

 private:
  /// A number below `limit`, by SplitMix64 (Steele, Lea and Flood 2014).
  DEVICE u64 draw_below(u64 limit, u64 number) const {
    u64 x = key + (number + 1) * 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return ((x ^ (x >> 31)) >> 32) * limit >> 32;
  }
};

}  // namespace ronde::cuda
