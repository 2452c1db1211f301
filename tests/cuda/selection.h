// What the tests of selections have in common: vectors of many kinds, and the entries that a device
// makes of them.
#pragma once

#include <algorithm>

#include "compress/picker.h"
#include "cuda/kernels/selection.h"
#include "on_device.h"

namespace ronde::cuda {

enum class Kind { normal, ties, equal, zeros, denormal, infinite, mostly_infinite, extreme };
inline constexpr int kKinds = 8;

inline std::vector<float> vector(Kind kind, std::size_t count, std::mt19937_64& random) {
  std::vector<float> x(count);
  std::normal_distribution<float> normal;
  const auto draw = [&](std::size_t i) -> float {
    const float moderate = normal(random) * std::exp2f(normal(random) * 3);
    switch (kind) {
      case Kind::normal:
        return moderate;
      case Kind::ties:
        return std::round(normal(random) * 2);
      case Kind::equal:
        return random() % 2 ? 0.5f : -0.5f;
      case Kind::zeros:
        return random() % 500 ? (random() % 2 ? 0.0f : -0.0f) : moderate;
      case Kind::denormal:
        return std::bit_cast<float>(static_cast<std::uint32_t>(random() % 1000 + 1));
      case Kind::infinite:
        return i % 97 ? moderate : i % 2 ? NAN : -INFINITY;
      case Kind::mostly_infinite:
        return random() % 3 ? INFINITY : moderate;
      case Kind::extreme:
        return std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    }
    return 0;
  };
  for (std::size_t i = 0; i < count; ++i) x[i] = draw(i);
  return x;
}

template <class T>
T* as(const OnDevice& memory) {
  return reinterpret_cast<T*>(memory.data());
}

template <class T>
std::vector<T> values_of(const OnDevice& memory) {
  const auto bytes = memory.bytes();
  std::vector<T> all(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

/// Room for entries, on the device.
class Room {
 public:
  Room(const Device& device, const Stream& stream, std::size_t room)
      : room_(room),
        positions_(device, stream, room * sizeof(u32)),
        values_(device, stream, room * sizeof(float)),
        count_(device, stream, sizeof(u32)) {}

  Entries entries() const {
    return {as<u32>(positions_), as<float>(values_), static_cast<u32>(room_), as<u32>(count_)};
  }

  /// Checks that these were selected. In the processor's residual, what has no room is put back.
  void check(const ronde::Entries& expected, std::span<float> residual) const {
    const std::size_t there = std::min(room_, expected.size());
    CHECK(values_of<u32>(count_)[0] == expected.size());
    const auto positions = values_of<u32>(positions_);
    CHECK(std::ranges::equal(std::span(positions).first(there), expected.positions().first(there)));
    const auto values = values_.bytes();
    CHECK(same(DType::float32, std::span(values).first(there * sizeof(float)),
               std::as_bytes(expected.values().first(there)), true));
    for (std::size_t i = there; i < expected.size() && !residual.empty(); ++i) {
      const float x = expected.values()[i];
      if (std::isfinite(x)) residual[expected.positions()[i]] = x;
    }
  }

 private:
  const std::size_t room_;
  const OnDevice positions_, values_, count_;
};

}  // namespace ronde::cuda
