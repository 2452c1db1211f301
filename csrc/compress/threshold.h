// What is larger than a threshold. How much that is nobody knows before: a threshold that does not
// fit the values sends nothing or everything. top_k.h chooses it by the values.
#pragma once

#include "compress/cut.h"
#include "compress/sparse.h"

namespace ronde {

class Threshold final : public Selection {
 public:
  explicit Threshold(const Cut& cut, const KernelTable& kernels = ronde::kernels())
      : Selection(kernels), cut_(cut) {}

  /// Sends each |x| >= least. Throws ArgumentError unless that is positive and finite.
  explicit Threshold(float least, const KernelTable& kernels = ronde::kernels());

 protected:
  std::size_t select(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::uint32_t* marks) const override {
    return mark(values, residual, cut_, draw.first, marks, kernels_);
  }

 private:
  Cut cut_;
};

}  // namespace ronde
