// What the kernels of low_rank.cu are given. Matrices, left and right vectors are those of
// csrc/kernels/low_rank.h, but the right vectors lie one after another, with nothing between.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// Vectors, at most.
inline constexpr u32 kMostVectors = 32;

/// low_rank_project
struct Project {
  u64 rows, columns;
  u32 rank, across;  // warps that have tiles of the same rows, side by side: 1, 2, 4 or 8
  const float* matrix;
  float* residual;  // or null; becomes matrix + residual, of which the products are made
  const float* right;
  float* left;
};

/// Rows that a warp has in a low_rank_project, and columns of a tile.
inline constexpr u32 kWarpRows = 4, kTileColumns = 512;

/// low_rank_back_project
struct BackProject {
  u64 rows, columns;
  u32 rank;
  const float* matrix;
  const float* left;
  float* right;
};

/// Columns that a block has at once in a low_rank_back_project.
inline constexpr u32 kBlockColumns = 16;

/// low_rank_reconstruct
struct Reconstruct {
  u64 rows, columns;
  u32 rank, wide;  // columns of a tile: 32 to 256, a power of two
  const float* left;
  const float* right;
  float factor, share;
  float* residual;  // or null
  float* out;
  const u32* finite;    // or null; if it is 0, all of the sum is given up:
  const float* matrix;  // what a low_rank_project has added to the residual; may be `out`
};

/// Rows that a thread has at once in a low_rank_reconstruct.
inline constexpr u32 kThreadRows = 8;

/// orthogonalise_vectors, of one block
struct Orthogonalise {
  float* vectors;
  u32 count;
  u64 length;
  double* scratch;  // of that length
  u32* finite;      // becomes whether they are; otherwise nothing changes
};

/// low_rank_keep, of a block for each vector: stores them, if they are finite
struct Keep {
  const float* from;
  float* to;  // may be the same
  u64 length;
  const u32* finite;
  u32* zeros;  // bit k becomes 1 where vector k is zero
};

}  // namespace ronde::cuda
