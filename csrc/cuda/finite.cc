#include "cuda/finite.h"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "core/error.h"
#include "cuda/kernels/finite.h"
#include "cuda/upload.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kWarp = 32;

/// The bits of the greatest value.
u64 limit_of(const Limited& array) {
  switch (array.dtype) {
    case DType::float16:
      return 0x7bff;
    case DType::bfloat16:
      return 0x7f7f;
    case DType::float32:
      return 0x7f7fffff;
    case DType::float64:
      return std::bit_cast<u64>(std::min(array.limit, std::numeric_limits<double>::max()));
    default:
      throw ArgumentError("all values of " + std::string(name_of(array.dtype)) + " are finite");
  }
}

}  // namespace

void find_beyond(Device& device, StreamHandle stream, std::span<const Limited> arrays,
                 std::uint32_t* beyond) {
  std::vector<FiniteArray> table;
  u64 units = 0;
  for (const auto& array : arrays) {
    const auto size = size_of(array.dtype);
    const u64 bytes = array.count * size;
    table.push_back({.data = static_cast<const u8*>(array.data),
                     .bytes = bytes,
                     .first_unit = units,
                     .limit = limit_of(array),
                     .size = static_cast<u32>(size)});
    units += (bytes + kFiniteUnit - 1) / kFiniteUnit;
  }
  if (units == 0) return;
  const auto there = uploaded(device, stream, std::as_bytes(std::span(table)));
  device.launch(stream, "find_beyond", units * kWarp,
                Finite{.arrays = reinterpret_cast<const FiniteArray*>(there.data()),
                       .count = static_cast<u32>(table.size()),
                       .units = units,
                       .beyond = beyond});
}

}  // namespace ronde::cuda
