#include "cuda/upload.h"

#include <cstring>

namespace ronde::cuda {

void upload(const Device& device, StreamHandle stream, std::byte* to,
            std::span<const std::byte> from) {
  if (from.empty()) return;
  const auto pinned = ScratchPool::of(device, Memory::Kind::pinned).take(stream, from.size_bytes());
  std::memcpy(pinned.data(), from.data(), from.size_bytes());
  device.copy(stream, to, pinned.data(), from.size_bytes());
}

Scratch uploaded(const Device& device, StreamHandle stream, std::span<const std::byte> from) {
  auto there = ScratchPool::of(device, Memory::Kind::device).take(stream, from.size_bytes());
  upload(device, stream, there.data(), from);
  return there;
}

}  // namespace ronde::cuda
