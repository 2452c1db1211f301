// What the selection of large values has in common, on the host and in kernels (compress/picker.h
// and kernels/select.h have the nouns).
#pragma once

#include "types.h"

namespace ronde::cuda {

struct alignas(8) Entry {
  u32 position;
  float value;
};

/// What was selected of a vector, in the order of positions, in memory of a device.
struct Entries {
  u32* positions;
  float* values;
  u32 room;    // for so many
  u32* count;  // one number: how many were selected; beyond `room` they are not there
};

/// What is selected: magnitudes greater than `above`, and the first so many that are equal to it.
struct Cut {
  u32 above, ties;
};

/// How many are greater than the `above` of a cut, and how many are equal to it.
struct Selected {
  u32 greater, equal;
};

/// What is known of the magnitude at a rank: its first digits, the others being 0, and its rank
/// among those that begin like it. 0: it is not finite.
struct Known {
  u32 magnitude;
  u32 rank;  // from 1 on, the largest first
};

/// A magnitude has three digits, of 11, 10 and 10 bits.
inline constexpr int kDigits = 3;
inline constexpr u32 kMostBins = 2048;  // of a histogram

}  // namespace ronde::cuda
