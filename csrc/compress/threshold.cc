#include "compress/threshold.h"

#include <bit>
#include <cmath>
#include <string>

#include "core/error.h"

namespace ronde {

Threshold::Threshold(float least, const KernelTable& kernels) : Selection(kernels), least_(least) {
  if (!(least > 0) || !std::isfinite(least))
    throw ArgumentError("a threshold must be positive and finite as a float32, not " +
                        std::to_string(least));
}

void Threshold::select(Picker& picker) const {
  picker.take(0, picker.count(), std::bit_cast<std::int32_t>(least_) - 1);
}

std::size_t Threshold::scratch(const cuda::Device& device, std::size_t count) const {
  return cuda::threshold_scratch(device, count, count);
}

void Threshold::select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
                       const cuda::Entries& out, std::byte* scratch) const {
  cuda::threshold(device, stream, input, least_, out, scratch);
}

}  // namespace ronde
