// What the kernels of top_k.cu are given: all of them the same.
//
// Nouns:
//   tile      so many elements, of which a block takes what is large
//   survivor  an element that was taken: it is larger than the guess
//   strip     the survivors of a tile, in order; strips are in any order
#pragma once

#include "selection.h"

namespace ronde::cuda {

inline constexpr u32 kTile = 4096, kMostSamples = 1 << 14;

struct Strip {
  u32 begin, count;
};

/// What kernels tell those after them. It is zeroed before the first.
struct TopKState {
  u32 survivors;         // of all tiles, whether there was space or not
  u32 least;             // the guess: survivors are at least so large
  Known known[kDigits];  // after each digit, of the magnitude at rank k
  u32 bins[kDigits][kMostBins];
};

struct TopK {
  const float* values;
  float* residual;  // may be null
  u64 count;
  bool alike;  // whether values and residual stand alike in their packets of 16 bytes
  u32 shift;   // so many elements before the first the first tile begins: a packet does
  u32 tiles;
  u32 k;              // 0: whatever is at least `least` is selected
  u32 least;          // the guess, if there is no sample
  u32 samples, rank;  // otherwise it is the magnitude of this rank in a sample
  u32 space;          // for survivors
  Entries out;

  TopKState* state;
  u32* sample;  // magnitudes
  Strip* strips;
  Entry* survivors;
  Selected *of_warps, *of_blocks;  // what those of top_k_count have found
};

}  // namespace ronde::cuda
