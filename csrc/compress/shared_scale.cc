#include "compress/shared_scale.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/error.h"

namespace ronde {
namespace {

constexpr std::size_t kGrain = 128;  // elements that random numbers are drawn for at once
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLeastStep = std::numeric_limits<float>::min();  // below, precision is lost
constexpr float kLargest = 0x1.fffffcp127f;  // divided and multiplied by levels it is finite

template <class T>
constexpr int kInteger = static_cast<int>(sizeof(T) == 1 ? Integer::int8 : Integer::int16);

void check(std::size_t size, std::size_t wanted, const char* what) {
  if (size != wanted)
    throw ArgumentError(std::string("there are ") + std::to_string(size) + " " + what + ", not " +
                        std::to_string(wanted));
}

void check_residual(std::span<const float> residual, std::size_t wanted) {
  if (!residual.empty()) check(residual.size(), wanted, "elements of the residual");
}

template <class T>
std::span<T> part(std::span<T> of, std::size_t offset, std::size_t count) {
  return of.empty() ? of : of.subspan(offset, count);
}

}  // namespace

SharedScale::SharedScale(int bits, std::size_t block, Rounding rounding, const KernelTable& kernels)
    : block_(block), rounding_(rounding), kernels_(kernels.shared_scale) {
  if (bits < 2 || bits > 8)
    throw ArgumentError("integers to be added must have 2 to 8 bits, not " + std::to_string(bits));
  if (block == 0 || block % kGrain || block > kMaxBlock)
    throw ArgumentError("a block of one scale must be a multiple of " + std::to_string(kGrain) +
                        " elements, up to " + std::to_string(kMaxBlock) + ", not " +
                        std::to_string(block));
  levels_ = static_cast<float>((1 << (bits - 1)) - 1);
}

int SharedScale::bits() const { return std::bit_width(static_cast<unsigned>(levels_)) + 1; }

DType SharedScale::integer(int ranks) const {
  constexpr int kMost = std::numeric_limits<std::int16_t>::max();
  const auto levels = static_cast<int>(levels_);
  if (ranks <= std::numeric_limits<std::int8_t>::max() / levels) return DType::int8;
  if (ranks <= kMost / levels) return DType::int16;
  std::string instead;
  for (int fewer = bits() - 1; fewer >= 2 && instead.empty(); --fewer) {
    if (ranks <= kMost / ((1 << (fewer - 1)) - 1))
      instead = "; " + std::to_string(fewer) + " bits fit";
  }
  throw ArgumentError("integers of " + std::to_string(bits()) + " bits of " +
                      std::to_string(ranks) +
                      " ranks do not fit int16 when they are added; those of " +
                      std::to_string(kMost / levels) + " ranks fit" + instead);
}

/// Calls f(number, offset, count) for every block.
template <class F>
void SharedScale::for_blocks(std::size_t count, F f) const {
  for (std::size_t number = 0, offset = 0; offset < count; ++number, offset += block_)
    f(number, offset, std::min(block_, count - offset));
}

/// NaN if `max` is not finite; zero where it would be no normal number.
float SharedScale::step_of(float max) const {
  if (!std::isfinite(max)) return kNan;
  const float step = std::min(max, kLargest) / levels_;
  return step < kLeastStep ? 0 : step;
}

/// Throws ArgumentError for what step_of does not give.
void SharedScale::check_step(float step) const {
  const auto bits = std::bit_cast<std::uint32_t>(step);
  const bool known = bits == 0 || bits == std::bit_cast<std::uint32_t>(kNan) ||
                     (step >= kLeastStep && step <= kLargest / levels_);
  if (!known) throw ArgumentError("the payload holds a scale that no encoder writes");
}

void SharedScale::maxima(std::span<const float> values, std::span<const float> residual,
                         std::span<float> maxima) const {
  check_residual(residual, values.size());
  check(maxima.size(), blocks(values.size()), "maxima");
  const float* const left = residual.empty() ? nullptr : residual.data();
  for_blocks(values.size(), [&](std::size_t number, std::size_t offset, std::size_t count) {
    maxima[number] = std::bit_cast<float>(
        kernels_.greatest(values.data() + offset, left ? left + offset : nullptr, count));
  });
}

template <class T>
void SharedScale::quantise_block(float step, std::span<const float> values,
                                 std::span<float> residual, Draw draw, T* out) const {
  if (std::isnan(step)) {
    std::fill_n(out, values.size(), T{0});
    std::ranges::fill(residual, 0.0f);
    return;
  }
  kernels_.quantise[kInteger<T>][static_cast<int>(rounding_)](
      {step, levels_}, values.data(), residual.empty() ? nullptr : residual.data(), values.size(),
      draw, out);
}

template <class T>
void SharedScale::quantise_all(std::span<const float> values, std::span<const float> maxima,
                               std::span<float> residual, std::uint64_t key,
                               std::span<T> out) const {
  check_residual(residual, values.size());
  check(maxima.size(), blocks(values.size()), "maxima");
  check(out.size(), values.size(), "integers");
  for_blocks(values.size(), [&](std::size_t number, std::size_t offset, std::size_t count) {
    quantise_block(step_of(maxima[number]), values.subspan(offset, count),
                   part(residual, offset, count), {key, offset}, out.data() + offset);
  });
}

void SharedScale::quantise(std::span<const float> values, std::span<const float> maxima,
                           std::span<float> residual, std::uint64_t key,
                           std::span<std::int8_t> out) const {
  quantise_all(values, maxima, residual, key, out);
}

void SharedScale::quantise(std::span<const float> values, std::span<const float> maxima,
                           std::span<float> residual, std::uint64_t key,
                           std::span<std::int16_t> out) const {
  quantise_all(values, maxima, residual, key, out);
}

template <class T>
void SharedScale::dequantise_all(std::span<const T> sums, std::span<const float> maxima,
                                 double factor, std::span<float> out) const {
  check(maxima.size(), blocks(out.size()), "maxima");
  check(sums.size(), out.size(), "integers");
  for_blocks(out.size(), [&](std::size_t number, std::size_t offset, std::size_t count) {
    kernels_.dequantise[kInteger<T>][static_cast<int>(Store::copy)](
        step_of(maxima[number]) * factor, sums.data() + offset, out.data() + offset, count);
  });
}

void SharedScale::dequantise(std::span<const std::int8_t> sums, std::span<const float> maxima,
                             double factor, std::span<float> out) const {
  dequantise_all(sums, maxima, factor, out);
}

void SharedScale::dequantise(std::span<const std::int16_t> sums, std::span<const float> maxima,
                             double factor, std::span<float> out) const {
  dequantise_all(sums, maxima, factor, out);
}

std::size_t SharedScale::capacity(std::size_t count) const {
  return blocks(count) * sizeof(float) + count;
}

std::size_t SharedScale::encode(std::span<const float> values, std::span<float> residual, Draw draw,
                                std::byte* payload) const {
  for_blocks(values.size(), [&](std::size_t, std::size_t offset, std::size_t count) {
    const auto here = values.subspan(offset, count);
    const auto left = part(residual, offset, count);
    float max;
    maxima(here, left, {&max, 1});
    const float step = step_of(max);
    std::memcpy(payload, &step, sizeof(step));
    payload += sizeof(step);
    quantise_block(step, here, left, {draw.key, draw.first + offset},
                   reinterpret_cast<std::int8_t*>(payload));
    payload += count;
  });
  return capacity(values.size());
}

void SharedScale::decode(std::span<const std::byte> payload, std::span<float> out,
                         Store store) const {
  if (const std::size_t length = capacity(out.size()); payload.size() != length)
    throw ArgumentError("a payload of " + std::to_string(out.size()) + " values has " +
                        std::to_string(length) + " bytes, not " + std::to_string(payload.size()));
  const auto decode = kernels_.dequantise[kInteger<std::int8_t>][static_cast<int>(store)];
  const int levels = static_cast<int>(levels_);
  const std::byte* next = payload.data();
  for_blocks(out.size(), [&](std::size_t, std::size_t offset, std::size_t count) {
    float step;
    std::memcpy(&step, next, sizeof(step));
    check_step(step);
    next += sizeof(step);
    const auto* const integers = reinterpret_cast<const std::int8_t*>(next);
    // From the lowest on, those outside count more than there are: below it they wrap around.
    std::uint8_t most = 0;
    for (std::size_t i = 0; i < count; ++i)
      most = std::max(most, static_cast<std::uint8_t>(integers[i] + levels));
    if (most > 2 * levels)
      throw ArgumentError("the payload holds an integer that no encoder writes");
    decode(step, integers, out.data() + offset, count);
    next += count;
  });
}

}  // namespace ronde
