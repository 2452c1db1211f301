// The products of low-rank compression on a device (compress/low_rank.h), with the bits of the
// processor's. All memory is the device's, aligned to its elements; nothing overlaps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "kernels/kernels.h"  // (kernels/low_rank.h would be that of the device)

namespace ronde::cuda {

class LowRank {
 public:
  /// Throws ArgumentError unless the rank is 1 to kMaxRank.
  LowRank(Device& device, const LowRankShape& shape);

  const LowRankShape& shape() const { return shape_; }

  /// Enqueues: stores the products of the matrix and the right vectors to `left`. With a residual,
  /// which is null if there is none, the matrix is matrix + residual, and stored to the residual.
  void project(StreamHandle stream, const float* matrix, float* residual, const float* right,
               float* left) const;

  /// Enqueues: stores the products of the transposed matrix and the left vectors to `right`.
  void back_project(StreamHandle stream, const float* matrix, const float* left,
                    float* right) const;

  struct Sum {
    const float* left;
    const float* right;
    float factor;
    std::size_t ranks;
    const std::uint32_t* finite = nullptr;  // whether there is a sum, where that must be asked
    const float* matrix = nullptr;          // that was projected, if so; may be the output
  };

  /// Enqueues: stores factor * left right to `out`, and takes left right / ranks from the residual,
  /// unless it is null. If there is no sum, `out` becomes NaN, and the residual what it was before
  /// the matrix was added to it, but for rounding; zero where that is not finite.
  void reconstruct(StreamHandle stream, const Sum& sum, float* out, float* residual) const;

 private:
  Device& device_;
  LowRankShape shape_;
};

/// Vectors of one length, one after another, and where they are stored; that may be the same
/// memory.
struct Vectors {
  const float* from;
  float* to;
  std::size_t count, length;
};

/// Enqueues: makes 1 to kMaxRank vectors orthonormal, as ronde::orthogonalise does. *found says
/// what has become of them; if there is NaN or infinity, nothing is stored but that.
void orthogonalise(Device& device, StreamHandle stream, const Vectors& vectors,
                   Orthogonalised* found);

}  // namespace ronde::cuda
