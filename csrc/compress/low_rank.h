// A matrix as the product of two thin ones: PowerSGD (Vogels, Karimireddy, Jaggi 2019).
//
// Ranks sum their matrices M, approximately, with one step of subspace iteration. Q is what the
// last step has found, with orthonormal columns:
//   1  M := M + residual, P = M Q            project, one pass over memory
//   2  P is summed over the ranks, exactly, and its columns are made orthonormal
//   3  Q = M^T P                             back_project, a second pass
//   4  Q is summed over the ranks, exactly
//   5  the sum is P Q^T, and the residual of a rank is M - P Q^T / ranks
//                                            reconstruct, a third pass
// So rank (rows + columns) floats are summed instead of rows columns, and all that the ranks have
// left out adds up to what is missing in the sum.
//
// Both P and Q are stored by columns, each of which is a vector: those of P are the left vectors,
// those of Q the right ones (kernels/low_rank.h). No state is kept here.
#pragma once

#include <cstddef>
#include <span>

#include "core/bytes.h"
#include "kernels/kernels.h"

namespace ronde {

class LowRank {
 public:
  /// Throws ArgumentError unless the rank is 1 to kMaxRank; all others do where the length of a
  /// span is not what follows from the shape.
  explicit LowRank(const LowRankShape& shape, const KernelTable& kernels = ronde::kernels());

  const LowRankShape& shape() const { return shape_; }

  /// Stores the products of the matrix and the right vectors to `left`. With a residual, which is
  /// empty if there is none, the matrix is matrix + residual, and stored to the residual.
  void project(std::span<const float> matrix, std::span<float> residual,
               std::span<const float> right, std::span<float> left) const;

  /// Stores the products of the transposed matrix and the left vectors to `right`.
  void back_project(std::span<const float> matrix, std::span<const float> left,
                    std::span<float> right) const;

  /// Stores factor * left right to `out`, and takes left right / ranks from the residual, unless it
  /// is empty.
  void reconstruct(std::span<const float> left, std::span<const float> right, std::span<float> out,
                   float factor, std::span<float> residual, std::size_t ranks) const;

 private:
  LowRankShape shape_;
  const LowRankKernels& kernels_;
};

/// Makes `count` vectors of one length, one after another, orthonormal: each loses what those
/// before it span (modified Gram-Schmidt, twice, in double precision). What is then below 2^-20 of
/// its length was rounding, or nothing, and becomes zero. Returns false, with nothing changed, if
/// there is NaN or infinity.
bool orthogonalise(std::span<float> vectors, std::size_t count);

}  // namespace ronde
