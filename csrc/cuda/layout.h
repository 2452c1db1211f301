// How scratch memory of kernels is cut into arrays.
#pragma once

#include <cstddef>

#include "core/round.h"

namespace ronde::cuda {

class Layout {
 public:
  /// Null, to count the bytes alone.
  explicit Layout(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(std::size_t count) {
    constexpr std::size_t kAlignment = 256;
    std::byte* const at = memory_ ? memory_ + bytes_ : nullptr;
    bytes_ += rounded(count * sizeof(T), kAlignment);
    return reinterpret_cast<T*>(at);
  }

  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* const memory_;
  std::size_t bytes_ = 0;
};

}  // namespace ronde::cuda
