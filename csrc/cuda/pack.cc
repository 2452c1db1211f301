#include "cuda/pack.h"

#include <vector>

#include "cuda/kernels/pack.h"
#include "cuda/upload.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kWarp = 32;

void copy_all(Device& device, StreamHandle stream, const char* kernel,
              std::span<const Array> arrays, u8* bucket) {
  std::vector<PackedArray> table;
  u64 offset = 0, units = 0;
  for (const auto& array : arrays) {
    table.push_back({static_cast<u8*>(array.data), array.bytes, offset, units});
    offset += array.bytes;
    units += (array.bytes + kPackUnit - 1) / kPackUnit;
  }
  if (units == 0) return;
  const auto there = uploaded(device, stream, std::as_bytes(std::span(table)));
  device.launch(stream, kernel, units * kWarp,
                Pack{.arrays = reinterpret_cast<const PackedArray*>(there.data()),
                     .count = static_cast<u32>(table.size()),
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
