#include "cuda/shared_scale.h"

#include <string>

#include "core/error.h"
#include "cuda/kernels/shared_scale.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kGrain = 128;  // elements that random numbers are drawn for at once
constexpr std::size_t kWarpSize = 32;

std::size_t width_of(Integer integer) { return integer == Integer::int8 ? 1 : 2; }

std::string name_of(Integer integer) { return integer == Integer::int8 ? "int8" : "int16"; }

bool aligned(const void* at, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(at) % bytes == 0;
}

/// What kernels only read is not const for those that store it.
template <class T>
T* writable(const T* at) {
  return const_cast<T*>(at);
}

int checked_bits(int bits) {
  if (bits < 2 || bits > 8)
    throw ArgumentError("integers to be added must have 2 to 8 bits, not " + std::to_string(bits));
  return bits;
}

}  // namespace

SharedScale::SharedScale(Device& device, int bits, std::size_t block, Rounding rounding)
    : device_(device),
      block_(block),
      levels_(static_cast<float>((1 << (checked_bits(bits) - 1)) - 1)),
      rounding_(rounding) {
  if (block == 0 || block % kGrain || block > kMaxBlock)
    throw ArgumentError("a block of one scale must be a multiple of " + std::to_string(kGrain) +
                        " elements, up to " + std::to_string(kMaxBlock) + ", not " +
                        std::to_string(block));
}

ScaledBlocks SharedScale::arrays(float* maxima, void* integers, std::size_t width,
                                 std::size_t count) const {
  return {.count = count,
          .block = static_cast<u32>(block_),
          .steps = false,
          .levels = levels_,
          .scales = reinterpret_cast<u8*>(maxima),
          .between_scales = sizeof(float),
          .integers = static_cast<u8*>(integers),
          .between_integers = block_ * width,
          .packed = aligned(integers, 4)};
}

ScaledBlocks SharedScale::payload(std::byte* payload, std::size_t count) const {
  auto* const scales = reinterpret_cast<u8*>(payload);
  return {.count = count,
          .block = static_cast<u32>(block_),
          .steps = true,
          .levels = levels_,
          .scales = scales,
          .between_scales = sizeof(float) + block_,
          .integers = scales + sizeof(float),
          .between_integers = sizeof(float) + block_,
          .packed = true};
}

void SharedScale::store_scales(StreamHandle stream, const Vector& vector,
                               const ScaledBlocks& blocks) const {
  if (vector.count == 0) return;
  u32 team = 1;
  while (team * kWarpPart < block_) team *= 2;
  device_.launch(stream, "shared_scale_maxima", this->blocks(vector.count) * team * kWarpSize,
                 Maxima{blocks, vector.values, vector.residual, team});
}

void SharedScale::store_integers(StreamHandle stream, const Vector& vector,
                                 const ScaledBlocks& blocks, Integer integer, Draw draw) const {
  if (vector.count == 0) return;
  const bool stochastic = rounding_ == Rounding::stochastic;
  const auto kernel =
      "shared_scale_quantise_" + name_of(integer) + (stochastic ? "_stochastic" : "_nearest");
  constexpr std::size_t kRows = 8;  // of a thread
  device_.launch(stream, kernel, (vector.count + kGrain - 1) / kGrain * (kGrain / kRows),
                 Quantise{blocks, vector.values, vector.residual, draw.key, draw.first});
}

void SharedScale::restore(StreamHandle stream, const Dequantise& arguments, Integer integer,
                          Store store) const {
  if (arguments.blocks.count == 0) return;
  constexpr std::size_t kItems = 4;
  auto given = arguments;
  given.blocks.packed = aligned(given.blocks.integers, kItems * width_of(integer)) &&
                        aligned(given.out, kItems * sizeof(float));
  const auto kernel =
      "shared_scale_dequantise_" + name_of(integer) + (store == Store::add ? "_add" : "_copy");
  device_.launch(stream, kernel, (given.blocks.count + kItems - 1) / kItems, given);
}

void SharedScale::maxima(StreamHandle stream, const Vector& vector, float* maxima) const {
  store_scales(stream, vector, arrays(maxima, nullptr, 0, vector.count));
}

void SharedScale::quantise(StreamHandle stream, const Vector& vector, const float* maxima,
                           std::uint64_t key, std::int8_t* out) const {
  store_integers(stream, vector, arrays(writable(maxima), out, sizeof *out, vector.count),
                 Integer::int8, {key, 0});
}

void SharedScale::quantise(StreamHandle stream, const Vector& vector, const float* maxima,
                           std::uint64_t key, std::int16_t* out) const {
  store_integers(stream, vector, arrays(writable(maxima), out, sizeof *out, vector.count),
                 Integer::int16, {key, 0});
}

void SharedScale::dequantise(StreamHandle stream, const Sums<std::int8_t>& sums, float* out,
                             std::size_t count, Store store) const {
  restore(
      stream,
      {arrays(writable(sums.maxima), writable(sums.integers), 1, count), sums.factor, out, nullptr},
      Integer::int8, store);
}

void SharedScale::dequantise(StreamHandle stream, const Sums<std::int16_t>& sums, float* out,
                             std::size_t count, Store store) const {
  restore(
      stream,
      {arrays(writable(sums.maxima), writable(sums.integers), 2, count), sums.factor, out, nullptr},
      Integer::int16, store);
}

void SharedScale::encode(StreamHandle stream, const Vector& vector, Draw draw,
                         std::byte* payload) const {
  const auto blocks = this->payload(payload, vector.count);
  store_scales(stream, vector, blocks);
  store_integers(stream, vector, blocks, Integer::int8, draw);
}

void SharedScale::decode(StreamHandle stream, const std::byte* payload, float* out,
                         std::size_t count, Store store, std::uint32_t* wrong) const {
  restore(stream, {this->payload(writable(payload), count), 1.0, out, wrong}, Integer::int8, store);
}

}  // namespace ronde::cuda
