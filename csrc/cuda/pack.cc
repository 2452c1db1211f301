#include "cuda/pack.h"

#include <algorithm>

#include "cuda/kernels/pack.h"
#include "cuda/scratch.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kWarp = 32;

/// The kernels find the arrays in a table, which is written to pinned memory and copied from there
/// on the stream, so that nothing waits.
void copy_all(Device& device, StreamHandle stream, const char* kernel,
              std::span<const Array> arrays, u8* bucket) {
  const auto is_empty = [](const Array& array) { return array.bytes == 0; };
  if (std::ranges::all_of(arrays, is_empty)) return;
  const std::size_t bytes = arrays.size() * sizeof(PackedArray);
  const auto here = ScratchPool::of(device, Memory::Kind::pinned).take(stream, bytes);
  const auto there = ScratchPool::of(device, Memory::Kind::device).take(stream, bytes);
  auto* table = reinterpret_cast<PackedArray*>(here.data());
  u64 offset = 0, units = 0;
  for (const auto& array : arrays) {
    *table++ = {static_cast<u8*>(array.data), array.bytes, offset, units};
    offset += array.bytes;
    units += (array.bytes + kPackUnit - 1) / kPackUnit;
  }
  device.copy(stream, there.data(), here.data(), bytes);
  device.launch(stream, kernel, units * kWarp,
                Pack{.arrays = reinterpret_cast<const PackedArray*>(there.data()),
                     .count = static_cast<u32>(arrays.size()),
                     .units = units,
                     .bucket = bucket});
}

}  // namespace

void pack(Device& device, StreamHandle stream, std::span<const Array> arrays, void* bucket) {
  copy_all(device, stream, "pack", arrays, static_cast<u8*>(bucket));
}

void unpack(Device& device, StreamHandle stream, const void* bucket,
            std::span<const Array> arrays) {
  copy_all(device, stream, "unpack", arrays, static_cast<u8*>(const_cast<void*>(bucket)));
}

}  // namespace ronde::cuda
