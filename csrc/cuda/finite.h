// Whether values on a device are finite, and of a size that another type can hold.
//
// All arrays are looked at by one launch, whatever their number and lengths. It is as fast as the
// memory where arrays are long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "core/dtype.h"
#include "cuda/device.h"

namespace ronde::cuda {

/// An array of a floating type in memory of the device, aligned to its elements.
struct Limited {
  const void* data;
  std::size_t count;
  DType dtype;
  double limit = std::numeric_limits<double>::infinity();  // of magnitudes of float64; not negative
};

/// Enqueues: *beyond becomes 1 if any value is NaN or infinite, or its magnitude beyond the limit;
/// otherwise it stays. The span itself may end when this returns.
void find_beyond(Device& device, StreamHandle stream, std::span<const Limited> arrays,
                 std::uint32_t* beyond);

}  // namespace ronde::cuda
