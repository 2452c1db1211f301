#include "compress/threshold.h"

#include <bit>
#include <cmath>
#include <string>

#include "core/error.h"

namespace ronde {

Threshold::Threshold(float least, const KernelTable& kernels)
    : Selection(kernels), above_(std::bit_cast<std::int32_t>(least) - 1) {
  if (!(least > 0) || !std::isfinite(least))
    throw ArgumentError("a threshold must be positive and finite as a float32, not " +
                        std::to_string(least));
}

void Threshold::select(Picker& picker) const { picker.take(0, picker.count(), above_); }

}  // namespace ronde
