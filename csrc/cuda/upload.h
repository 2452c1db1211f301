// Memory of the host to a device, as it is now: it goes by way of pinned memory, so that nothing
// waits.
#pragma once

#include <cstddef>
#include <span>

#include "cuda/scratch.h"

namespace ronde::cuda {

/// Enqueues the copy.
void upload(const Device& device, StreamHandle stream, std::byte* to,
            std::span<const std::byte> from);

/// The same to memory for what is enqueued on this stream.
Scratch uploaded(const Device& device, StreamHandle stream, std::span<const std::byte> from);

}  // namespace ronde::cuda
