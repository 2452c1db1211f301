// What is larger than a threshold. How much that is nobody knows before: a threshold that does not
// fit the values sends nothing or everything. top_k.h chooses it by the values.
#pragma once

#include "compress/sparse.h"

namespace ronde {

class Threshold final : public Selection {
 public:
  /// Sends each |x| >= least. Throws ArgumentError unless that is positive and finite.
  explicit Threshold(float least, const KernelTable& kernels = ronde::kernels());

 protected:
  void select(Picker& picker) const override;

 private:
  std::int32_t above_;
};

}  // namespace ronde
