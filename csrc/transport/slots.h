// Small numbers for things under way: requests are indices into such a pool.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace ronde {

/// A pool of T whose elements keep their address, with indices that are used again.
template <class T>
class Slots {
 public:
  std::uint32_t take() {
    if (free_.empty()) {
      items_.emplace_back();
      return static_cast<std::uint32_t>(items_.size() - 1);
    }
    const auto index = free_.back();
    free_.pop_back();
    return index;
  }
  void give_back(std::uint32_t index) {
    items_[index] = T{};
    free_.push_back(index);
  }
  T& operator[](std::uint32_t index) { return items_[index]; }

 private:
  std::deque<T> items_;
  std::vector<std::uint32_t> free_;
};

}  // namespace ronde
