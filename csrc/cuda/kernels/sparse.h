// What the kernels of sparse.cu are given. A part is a block of 65536 elements of a span, within
// which offsets have 16 bits (compress/sparse.h has the payload).
#pragma once

#include "selection.h"

namespace ronde::cuda {

inline constexpr u32 kPart = 1 << 16;
inline constexpr u32 kMostSegments = 128;  // in one launch

/// Elements that have a payload of their own.
struct Segment {
  u32 begin, count;
  u64 payload;  // where that is, in bytes, a multiple of 4
};

/// sparse_write
struct SparseWrite {
  Entries entries;  // of the whole vector
  u8* payloads;
  u64* lengths;  // of the payloads
  u32 segments;
  u32 first_parts[kMostSegments + 1];  // of each segment, and of all that there are
  Segment segment[kMostSegments];
};

/// sparse_survey, sparse_scatter
struct SparseRead {
  const u8* payload;
  u64 bytes;
  float* out;
  u32 count, parts;
  bool adds;
  u32* counts;     // of entries, in each part
  u32* malformed;  // becomes 1 if this is not a payload of so many values
};

}  // namespace ronde::cuda
