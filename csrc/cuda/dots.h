// Dot products of two vectors on a device (kernels/dot.h).
#pragma once

#include <cstddef>

#include "core/dtype.h"
#include "cuda/device.h"
#include "kernels/dot.h"

namespace ronde::cuda {

/// Enqueues the dot products of two vectors of a floating type, in double precision, which go to
/// *out. All lie in memory of the device, aligned to their elements.
///
/// In which order products are added depends on `count` alone (cuda/kernels/dots.cu), and so do the
/// bits. Up to 1024 elements they are the processor's. The processor goes on in sequence, the
/// device adds what the processor finds for each 1024.
void dots(Device& device, StreamHandle stream, DType dtype, const void* left, const void* right,
          std::size_t count, Dots* out);

}  // namespace ronde::cuda
