// What a rank contributes to a reduction that has nothing to contribute, on a device
// (kernels/neutral.h).
#pragma once

#include <cstddef>

#include "core/reduction.h"
#include "cuda/device.h"

namespace ronde::cuda {

/// Enqueues: stores `count` values that change no result. `data` is aligned to its elements.
void fill_neutral(Device& device, StreamHandle stream, const Reduction& reduction, void* data,
                  std::size_t count);

}  // namespace ronde::cuda
