// Reductions on a device, with the bits of the processor's (kernels/kernels.h).
#pragma once

#include <cstddef>
#include <span>

#include "core/reduction.h"
#include "cuda/device.h"

namespace ronde::cuda {

/// Enqueues the reduction of 1 to 8 inputs of `count` elements, in order. `out` may be one of them.
/// All lie in memory of the device, aligned to their elements; where they stand alike in their
/// packets of 16 bytes it is as fast as the memory.
void reduce_many(Device& device, StreamHandle stream, const Reduction& reduction, void* out,
                 std::span<const void* const> ins, std::size_t count);

/// Enqueues what happens to one input before it is reduced, and to the result.
inline void scale(Device& device, StreamHandle stream, const Reduction& by, void* out,
                  const void* in, std::size_t count) {
  reduce_many(device, stream, by, out, {&in, 1}, count);
}

}  // namespace ronde::cuda
