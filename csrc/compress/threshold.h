// What is larger than a threshold. How much that is nobody knows before: a threshold that does not
// fit the values sends nothing or everything. top_k.h chooses it by the values.
#pragma once

#include "compress/gpu_selection.h"
#include "compress/sparse.h"

namespace ronde {

class Threshold final : public Selection, private GpuSelection {
 public:
  /// Sends each |x| >= least. Throws ArgumentError unless that is positive and finite.
  explicit Threshold(float least, const KernelTable& kernels = ronde::kernels());

  const GpuSelection* gpu_selection() const override { return this; }

 protected:
  void select(Picker& picker) const override;

 private:
  std::size_t scratch(const cuda::Device& device, std::size_t count) const override;
  void select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
              const cuda::Entries& out, std::byte* scratch) const override;

  const float least_;
};

}  // namespace ronde
