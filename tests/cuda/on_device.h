// What the tests of kernels have in common: vectors on the device, and how results are compared.
//
// The seed is RONDE_SEED, or 1. Fresh memory of the device is filled, so that what no kernel writes
// shows.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "check.h"
#include "core/dtype.h"
#include "cuda/device.h"

// AddressSanitizer's, which stands in for the memory of the device there; or null.
extern "C" __attribute__((weak)) void __asan_poison_memory_region(const volatile void* begin,
                                                                  std::size_t bytes);

namespace ronde::cuda {

inline std::uint64_t seed() {
  const char* const text = std::getenv("RONDE_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

/// A copy of bytes on the device, at so many bytes behind what is well aligned. Nothing may touch
/// those (AddressSanitizer sees it of whole words).
class OnDevice {
 public:
  OnDevice(const Device& device, const Stream& stream, std::span<const std::byte> bytes,
           std::size_t behind = 0)
      : OnDevice(device, stream, bytes.size(), behind) {
    device.copy(stream, data(), bytes.data(), bytes.size());
    stream.synchronise();
  }
  /// Filled.
  OnDevice(const Device& device, const Stream& stream, std::size_t bytes, std::size_t behind = 0)
      : device_(device),
        stream_(stream),
        behind_(behind),
        memory_(device, Memory::Kind::device, behind + bytes),
        bytes_(bytes) {
    device.fill(stream, memory_.data(), 0xab, memory_.size());
    if (!__asan_poison_memory_region || behind < 8) return;
    stream.synchronise();
    __asan_poison_memory_region(memory_.data(), behind / 8 * 8);
  }

  std::byte* data() const { return memory_.data() + behind_; }

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all(bytes_);
    device_.copy(stream_, all.data(), data(), bytes_);
    stream_.synchronise();
    return all;
  }

 private:
  const Device& device_;
  const Stream& stream_;
  const std::size_t behind_;
  Memory memory_;
  const std::size_t bytes_;
};

/// Elements of a type: mostly moderate, some of them extreme, some equal.
inline std::vector<std::byte> elements(DType dtype, std::size_t count, std::mt19937_64& random) {
  std::vector<std::byte> all(count * size_of(dtype));
  const auto fill = [&](auto draw) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto x = draw();
      std::memcpy(all.data() + i * sizeof x, &x, sizeof x);
    }
  };
  std::normal_distribution<float> normal;
  const auto moderate = [&] { return normal(random) * std::exp2f(normal(random) * 4); };
  const auto rarely = [&] { return random() % 16 == 0; };
  switch (dtype) {
    case DType::float32:
      fill([&] {
        return rarely() ? std::bit_cast<float>(static_cast<std::uint32_t>(random())) : moderate();
      });
      break;
    case DType::float64:
      fill([&] { return rarely() ? std::bit_cast<double>(random()) : double{moderate()}; });
      break;
    case DType::bfloat16:
      fill([&] {
        return rarely()
                   ? static_cast<std::uint16_t>(random())
                   : static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(moderate()) >> 16);
      });
      break;
    case DType::float16:
      fill([&] { return static_cast<std::uint16_t>(random()); });
      break;
    case DType::boolean:
      fill([&] { return static_cast<std::uint8_t>(random() % 2 ? random() : 0); });
      break;
    default:
      for (auto& byte : all) byte = static_cast<std::byte>(random());
  }
  return all;
}

/// Whether the element is NaN.
inline bool is_nan(DType dtype, const std::byte* at) {
  const auto above = [&](auto bits, auto infinity) {
    std::memcpy(&bits, at, sizeof bits);
    return static_cast<decltype(bits)>(bits << 1) > static_cast<decltype(bits)>(infinity << 1);
  };
  switch (dtype) {
    case DType::float16:
      return above(std::uint16_t{}, 0x7c00);
    case DType::bfloat16:
      return above(std::uint16_t{}, 0x7f80);
    case DType::float32:
      return above(std::uint32_t{}, 0x7f800000u);
    case DType::float64:
      return above(std::uint64_t{}, 0x7ff0000000000000u);
    default:
      return false;
  }
}

/// The same bytes; of NaN any, if `any_nan`.
inline bool same(DType dtype, std::span<const std::byte> a, std::span<const std::byte> b,
                 bool any_nan) {
  if (a.size() != b.size()) return false;
  const auto size = size_of(dtype);
  for (std::size_t i = 0; i < a.size(); i += size) {
    if (std::memcmp(&a[i], &b[i], size) == 0) continue;
    if (!any_nan || !is_nan(dtype, &a[i]) || !is_nan(dtype, &b[i])) return false;
  }
  return true;
}

}  // namespace ronde::cuda
