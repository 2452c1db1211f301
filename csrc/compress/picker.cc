#include "compress/picker.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "compress/cut.h"
#include "core/error.h"

namespace ronde {
namespace {

constexpr std::size_t kMostValues = std::numeric_limits<std::uint32_t>::max();

template <class T>
Bytes longer(const Bytes& memory, std::size_t used, std::size_t room) {
  Bytes more(room * sizeof(T));
  if (used) std::memcpy(more.data(), memory.data(), used * sizeof(T));
  return more;
}

}  // namespace

EntrySpan Entries::between(std::uint64_t begin, std::uint64_t end) const {
  const auto all = positions();
  const auto from = std::lower_bound(all.begin(), all.end(), begin),
             to = std::lower_bound(from, all.end(), end);
  const auto first = static_cast<std::size_t>(from - all.begin()),
             count = static_cast<std::size_t>(to - from);
  return {all.subspan(first, count), values().subspan(first, count)};
}

void Entries::reserve(std::size_t more) {
  const std::size_t needed = size_ + more + kSpare;
  if (needed <= room_) return;
  room_ = std::max(needed, 2 * room_);
  positions_ = longer<std::uint32_t>(positions_, size_, room_);
  values_ = longer<float>(values_, size_, room_);
}

Picker::Picker(std::span<const float> values, std::span<float> residual, const KernelTable& kernels)
    : values_(values), residual_(residual), kernels_(kernels) {
  if (values.size() > kMostValues)
    throw ArgumentError("a sparse payload has at most " + std::to_string(kMostValues) + " values");
}

void Picker::take(std::size_t begin, std::size_t end, std::int32_t above) {
  take_from(values_.data(), residual_.data(), begin, end, above);
}

void Picker::take_again(std::size_t begin, std::size_t end, std::int32_t above) {
  take_from(residual_.empty() ? values_.data() : residual_.data(), nullptr, begin, end, above);
}

void Picker::take_from(const float* values, const float* residual, std::size_t begin,
                       std::size_t end, std::int32_t above) {
  float* const left = residual_.data();
  for (; begin < end; begin += kPiece) {
    const std::size_t length = std::min(kPiece, end - begin), before = entries_.size();
    entries_.reserve(length);
    entries_.resize(before + kernels_.select.take(values + begin,
                                                  residual ? residual + begin : nullptr,
                                                  left ? left + begin : nullptr, length, above,
                                                  static_cast<std::uint32_t>(begin),
                                                  entries_.positions().data() + before,
                                                  entries_.values().data() + before));
  }
}

void Picker::put_back(std::size_t first) {
  put_back(entries_, first);
  entries_.resize(first);
}

/// The positions are far apart: memory fetches some while others are written.
void Picker::put_back(const Entries& entries, std::size_t first) {
  constexpr std::size_t kAhead = 32;
  const auto positions = entries.positions();
  const auto values = entries.values();
  if (residual_.empty()) return;
  for (std::size_t i = first; i < positions.size(); ++i) {
    __builtin_prefetch(&residual_[positions[std::min(i + kAhead, positions.size() - 1)]], 1);
    residual_[positions[i]] = values[i];
  }
}

/// Without branches, as nobody foresees which are kept.
std::int32_t Picker::keep_largest(std::size_t first, std::size_t k, std::int32_t above) {
  const auto positions = entries_.positions();
  const auto values = entries_.values();
  if (values.size() - first <= k) return above;
  const std::int32_t low = std::max(above - 1, kBelowAll);
  auto [limit, ties] = cut_of(values.subspan(first), k, low, kernels_);
  others_.resize(0);
  others_.reserve(values.size() - first);
  entries_.resize(first);
  for (std::size_t i = first; i < values.size(); ++i) {
    const std::int32_t magnitude = std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff;
    const bool tie = (magnitude == limit) & (ties > 0), kept = (magnitude > limit) | tie;
    ties -= tie;
    others_.add(positions[i], values[i], !kept);
    entries_.add(positions[i], values[i], kept);
  }
  put_back(others_, 0);
  return limit;
}

}  // namespace ronde
