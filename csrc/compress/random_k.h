// Random entries, the same on all ranks: the vector is cut into k = round(ratio n) parts, as even
// as possible, and one entry of each is drawn by the key and the number of the part. So exactly k
// are sent, unless others are NaN or infinite, and each has had its turn after some 1/ratio steps
// (Stich et al. 2018). They are sent as they are, not divided by the ratio: with a residual that is
// right, as nothing is sent twice.
#pragma once

#include "compress/sparse.h"

namespace ronde {

class RandomK final : public Sparse {
 public:
  /// Throws ArgumentError unless 0 < ratio <= 1.
  explicit RandomK(double ratio, const KernelTable& kernels = ronde::kernels())
      : Sparse(kernels), ratio_(checked_ratio(ratio)) {}

  std::size_t capacity_of_whole(std::size_t count) const override;
  std::shared_ptr<const Compressor> fitted(std::span<const float> values, std::span<float> residual,
                                           std::uint64_t key) const override;

 private:
  double ratio_;
};

}  // namespace ronde
