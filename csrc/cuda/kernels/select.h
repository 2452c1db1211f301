// What the kernels of select.cu are given.
#pragma once

#include "selection.h"

namespace ronde::cuda {

/// A block of so many elements a warp holds in its registers.
inline constexpr u32 kSmallBlock = 1024;

/// block_top_k_<find|keep>_<small|large>
struct BlockTopK {
  const float* values;
  float* residual;  // may be null
  u64 count;
  u32 block, blocks;  // elements of a block, except the last; how many blocks
  u32 k, last_k;      // of each block, of the last
  Entries out;

  Cut* cuts;                  // of each block
  u32 *of_warps, *of_blocks;  // entries that those of the grid have found
};

/// random_k_encode, random_k_draw
struct RandomKEncode {
  const float* values;
  float* residual;  // may be null
  u64 count, parts, key;
  u32* payload;  // key, numbers: these are 0 before
};

/// random_k_decode
struct RandomKDecode {
  const u32* payload;
  u64 count, parts;
  float* out;  // is added to
};

}  // namespace ronde::cuda
