// The largest, by absolute value; of equal ones the first.
//
//   top-k         k = round(ratio n), at least 1, of the whole vector of a call (Aji and Heafield
//                 2017; with the residual, Stich et al. 2018)
//   block top-k   as many of each block: no value depends on those of another block
//
// Exactly k are sent, unless more are NaN or infinite.
#pragma once

#include "compress/gpu_selection.h"
#include "compress/sparse.h"

namespace ronde {

class TopK final : public Sparse, private GpuSelection {
 public:
  /// Throws ArgumentError unless 0 < ratio <= 1.
  explicit TopK(double ratio, const KernelTable& kernels = ronde::kernels())
      : Sparse(kernels), ratio_(checked_ratio(ratio)) {}

  std::size_t capacity_of_whole(std::size_t count) const override;
  std::shared_ptr<const Compressor> for_vector(std::span<const float> values,
                                               std::span<float> residual) const override;
  const GpuSelection* gpu_selection() const override { return this; }

 private:
  std::size_t scratch(const cuda::Device& device, std::size_t count) const override;
  void select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
              const cuda::Entries& out, std::byte* scratch) const override;

  double ratio_;
};

class BlockTopK final : public Selection, private GpuSelection {
 public:
  /// `block` is a multiple of 32, up to 65536. Throws ArgumentError for another, and unless
  /// 0 < ratio <= 1.
  BlockTopK(double ratio, std::size_t block, const KernelTable& kernels = ronde::kernels());

  std::size_t grain() const override { return block_; }
  std::size_t capacity_of_whole(std::size_t count) const override;
  const GpuSelection* gpu_selection() const override { return this; }

 protected:
  void select(Picker& picker) const override;

 private:
  std::size_t scratch(const cuda::Device& device, std::size_t count) const override;
  void select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
              const cuda::Entries& out, std::byte* scratch) const override;

  double ratio_;
  std::size_t block_;
};

}  // namespace ronde
