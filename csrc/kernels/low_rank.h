// Products of a matrix with a few vectors: what the kernels of low-rank compression (low_rank.inc)
// work on.
//
// Nouns:
//   matrix        rows x columns floats, one row after another
//   left, right   `rank` vectors each: those of the left as long as a column of the matrix, those
//   of
//                 the right as long as a row. Together they stand for the matrix of the sums of
//                 left[k][i] * right[k][j] over k
//   stride        from one vector of the right to the next: the columns, filled up to a multiple of
//                 kRow. What is filled in is zero before and undefined after
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/codec.h"

namespace ronde {

inline constexpr std::size_t kMaxRank = 32;

struct LowRankShape {
  std::size_t rows, columns, rank;  // rank: 1 to kMaxRank

  std::size_t stride() const { return (columns + kRow - 1) / kRow * kRow; }
};

/// What has become of vectors that were to be made orthonormal.
struct Orthogonalised {
  std::uint32_t finite;  // 1, or 0 if there was NaN or infinity: then nothing has become of them
  std::uint32_t zeros;   // bit k: vector k is zero, as those before it span it
};

/// left = matrix right. With a residual, which may be null, the matrix is the sum of both, and
/// stored to the residual.
using ProjectKernel = void (*)(LowRankShape shape, const float* matrix, float* residual,
                               const float* right, float* left);

/// right += matrix^T left.
using BackProjectKernel = void (*)(LowRankShape shape, const float* matrix, const float* left,
                                   float* right);

/// For the product left right: out = factor * product, and residual -= share * product unless that
/// is null.
using ReconstructKernel = void (*)(LowRankShape shape, const float* left, const float* right,
                                   float factor, float share, float* residual, float* out);

struct LowRankKernels {
  ProjectKernel project;
  BackProjectKernel back_project;
  ReconstructKernel reconstruct;
};

}  // namespace ronde
