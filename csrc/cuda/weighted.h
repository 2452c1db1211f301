// Weighted sums and means of two vectors on a device, with the bits of the processor's
// (kernels/kernels.h).
//
// All lie in memory of the device, aligned to their elements; where they stand alike in their
// packets of 16 bytes it is as fast as the memory.
#pragma once

#include <cstddef>

#include "cuda/device.h"
#include "kernels/kernels.h"

namespace ronde::cuda {

/// Enqueues the weighted sum of two vectors of a floating type. `out` may be one of them.
void add_weighted(Device& device, StreamHandle stream, DType dtype, void* out, const Weighted& left,
                  const Weighted& right, std::size_t count);

/// Enqueues the mean of the contributions to both.
void mean(Device& device, StreamHandle stream, DType dtype, void* out, const Mean& left,
          const Mean& right, std::size_t count);

}  // namespace ronde::cuda
