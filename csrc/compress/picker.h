// What sparse compressors pick of a vector.
//
// Nouns:
//   input    the values plus the residual, if there is one
//   entry    an element of the input, and its position; entries are in the order of positions
//   to take  to make an entry of an element and store 0 at its position in the residual, which
//            otherwise becomes the input
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/bytes.h"
#include "kernels/kernels.h"

namespace ronde {

struct EntrySpan {
  std::span<const std::uint32_t> positions;
  std::span<const float> values;
};

class Entries {
 public:
  std::size_t size() const { return size_; }
  std::span<std::uint32_t> positions() const { return {positions_.as<std::uint32_t>(), size_}; }
  std::span<float> values() const { return {values_.as<float>(), size_}; }

  /// Those of a range of positions.
  EntrySpan between(std::uint64_t begin, std::uint64_t end) const;

  /// Room for so many more, and for what kernels may overwrite behind them.
  void reserve(std::size_t more);
  /// Those that are new are in the room, behind the others.
  void resize(std::size_t size) { size_ = size; }
  /// Writes one into the room, which counts or not.
  void add(std::uint32_t position, float value, bool counts = true) {
    positions_.as<std::uint32_t>()[size_] = position;
    values_.as<float>()[size_] = value;
    size_ += counts;
  }

 private:
  Bytes positions_, values_;
  std::size_t size_ = 0, room_ = 0;
};

class Picker {
 public:
  static constexpr std::size_t kPiece = 1 << 14;  // elements that stay in the cache

  /// The residual is empty or has as many elements. Throws ArgumentError if they are too many for a
  /// sparse payload.
  Picker(std::span<const float> values, std::span<float> residual, const KernelTable& kernels);

  std::size_t count() const { return values_.size(); }
  const Entries& entries() const { return entries_; }

  /// Room for so many entries, if they can be foreseen.
  void reserve(std::size_t entries) { entries_.reserve(std::min(entries, count())); }

  /// Takes what has a magnitude greater than `above`, of a part of the vector. Parts come in order.
  void take(std::size_t begin, std::size_t end, std::int32_t above);

  /// The same for a part that take() has gone over, and of which nothing is taken any more.
  void take_again(std::size_t begin, std::size_t end, std::int32_t above);

  /// Undoes the taking of all entries from number `first` on.
  void put_back(std::size_t first);

  /// Of the entries from number `first` on, keeps the k largest, of equal ones the first, and all
  /// that are NaN or infinite, and puts the others back. All are greater than `above`, or have been
  /// kept by a call that returned it. Returns the magnitude that what comes later must exceed to be
  /// among the largest, too.
  std::int32_t keep_largest(std::size_t first, std::size_t k, std::int32_t above);

 private:
  void put_back(const Entries& entries, std::size_t first);
  void take_from(const float* values, const float* residual, std::size_t begin, std::size_t end,
                 std::int32_t above);

  std::span<const float> values_;
  std::span<float> residual_;
  const KernelTable& kernels_;
  Entries entries_;
  Entries others_;  // that have not been kept
};

}  // namespace ronde
