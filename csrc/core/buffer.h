// A span of bytes and where it lives.
//
// Only host memory is moved today. Every buffer has its memory kind all the same, so that a
// transport or a kernel for device memory is an addition and not a change of every signature.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ronde {

enum class MemoryKind : std::uint8_t { host, cuda };

/// Where memory lives and, for a device, the stream in whose order it may be touched.
struct Place {
  MemoryKind kind = MemoryKind::host;
  int device = 0;
  void* stream = nullptr;
};

struct Buffer {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  Place place = {};

  Buffer slice(std::size_t offset, std::size_t length) const {
    return {data + offset, length, place};
  }
};

struct ConstBuffer {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  Place place = {};

  ConstBuffer() = default;
  ConstBuffer(const std::byte* data, std::size_t bytes, Place place = {})
      : data(data), bytes(bytes), place(place) {}
  ConstBuffer(const Buffer& other) : data(other.data), bytes(other.bytes), place(other.place) {}

  ConstBuffer slice(std::size_t offset, std::size_t length) const {
    return {data + offset, length, place};
  }
};

}  // namespace ronde
