// A span of bytes and the device that holds it.
//
// Only routes that say so take memory of a device (collective/route.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ronde {

enum class MemoryKind : std::uint8_t { host, cuda };

/// What holds memory and, for a GPU, when it may be touched: a cuda::Order, which outlives the
/// call.
struct Device {
  MemoryKind kind = MemoryKind::host;
  int number = 0;
  void* order = nullptr;

  bool is_gpu() const { return kind == MemoryKind::cuda; }
};

struct Buffer {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  Device device = {};

  Buffer slice(std::size_t offset, std::size_t length) const {
    return {data + offset, length, device};
  }
};

struct ConstBuffer {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  Device device = {};

  ConstBuffer() = default;
  ConstBuffer(const std::byte* data, std::size_t bytes, Device device = {})
      : data(data), bytes(bytes), device(device) {}
  ConstBuffer(const Buffer& other) : data(other.data), bytes(other.bytes), device(other.device) {}

  ConstBuffer slice(std::size_t offset, std::size_t length) const {
    return {data + offset, length, device};
  }
};

}  // namespace ronde
