#include "compress/random_k.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "compress/picker.h"
#include "compress/sparse.h"
#include "core/error.h"

namespace ronde {

RandomK::RandomK(double ratio, const KernelTable& kernels)
    : ratio_(checked_ratio(ratio)), kernels_(kernels) {}

std::size_t RandomK::capacity(std::size_t count) const {
  return kHead + sizeof(float) * share(ratio_, count);
}

RandomPositions RandomK::positions(std::size_t count, std::uint64_t key) const {
  if (count > std::numeric_limits<std::uint32_t>::max())
    throw ArgumentError("random-k takes vectors of less than 2^32 elements");
  return {count, share(ratio_, count), key};
}

std::size_t RandomK::encode(std::span<const float> values, std::span<float> residual, Draw draw,
                            std::byte* payload) const {
  const RandomPositions drawn = positions(values.size(), draw.key);
  std::memcpy(payload, &draw.key, kHead);
  const auto write = [&](std::uint64_t part, float number) {
    std::memcpy(payload + kHead + part * sizeof(float), &number, sizeof(float));
  };
  Picker picker(values, residual, kernels_);
  std::uint64_t part = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += Picker::kPiece) {
    const std::size_t end = std::min(begin + Picker::kPiece, values.size());
    picker.take(begin, end, kGreatestFinite);
    for (; part < drawn.parts; ++part) {
      const std::uint64_t position = drawn.drawn(part);
      if (position >= end) break;
      write(part, residual.empty() ? values[position] : std::exchange(residual[position], 0.0f));
    }
  }
  for (const std::uint32_t position : picker.entries().positions())
    write(drawn.part_of(position), std::numeric_limits<float>::quiet_NaN());
  return capacity(values.size());
}

void RandomK::decode(std::span<const std::byte> payload, std::span<float> out, Store store) const {
  const std::size_t count = out.size();
  if (payload.size() != capacity(count))
    throw ArgumentError("the payload of random-k has " + std::to_string(payload.size()) +
                        " bytes, not the " + std::to_string(capacity(count)) + " of " +
                        std::to_string(count) + " values");
  std::uint64_t key;
  std::memcpy(&key, payload.data(), kHead);
  const RandomPositions drawn = positions(count, key);
  if (store == Store::copy) std::fill(out.begin(), out.end(), 0.0f);
  // The positions are far apart: memory fetches those of a batch while others are drawn.
  constexpr std::uint64_t kBatch = 64;
  std::array<std::uint64_t, kBatch> batch;
  for (std::uint64_t first = 0; first < drawn.parts; first += kBatch) {
    const std::uint64_t last = std::min(first + kBatch, drawn.parts);
    for (std::uint64_t part = first; part < last; ++part) {
      batch[part - first] = drawn.drawn(part);
      __builtin_prefetch(&out[batch[part - first]], 1);
    }
    for (std::uint64_t part = first; part < last; ++part) {
      float number;
      std::memcpy(&number, payload.data() + kHead + part * sizeof(float), sizeof(float));
      if (std::isfinite(number))
        out[batch[part - first]] += number;
      else
        for (auto i = drawn.begin(part); i < drawn.begin(part + 1); ++i) out[i] += number;
    }
  }
}

}  // namespace ronde
