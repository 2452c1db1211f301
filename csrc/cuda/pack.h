// Arrays of a device into a bucket, one after another without gaps, and back.
//
// All arrays are copied by one launch, whatever their number and lengths. They and the bucket may
// be at any address; it is as fast as the memory where long ones are aligned to 16 bytes in the
// bucket as in themselves, and nearly so where they are not.
#pragma once

#include <cstddef>
#include <span>

#include "cuda/device.h"

namespace ronde::cuda {

/// Memory of the device, perhaps none.
struct Array {
  void* data;
  std::size_t bytes;
};

/// Enqueues the copies of all arrays to the bucket, which has as many bytes as they together. They
/// do not overlap it. The span itself may end when this returns.
void pack(Device& device, StreamHandle stream, std::span<const Array> arrays, void* bucket);

/// Enqueues the copies back. The arrays do not overlap.
void unpack(Device& device, StreamHandle stream, const void* bucket, std::span<const Array> arrays);

}  // namespace ronde::cuda
