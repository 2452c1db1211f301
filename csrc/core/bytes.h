// Uninitialised memory with shared ownership.
//
// Large blocks are kept for the next use when they have no owner any more: touching new memory of
// the system for the first time takes longer than most collectives. As much is kept as is in use,
// and a little more.
#pragma once

#include <cstddef>
#include <memory>

#include "core/buffer.h"

namespace ronde {

class Bytes {
 public:
  static constexpr std::size_t kLarge = 1 << 20;  // from here on blocks are kept

  Bytes() = default;
  explicit Bytes(std::size_t size) : data_(allocate(size)), size_(size) {}

  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  Buffer buffer() const { return {data(), size(), {}}; }

  /// The same memory as `size() / sizeof(T)` values.
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data());
  }

  /// The memory, with its ownership.
  std::shared_ptr<const void> owner() const { return data_; }

  /// Gives kept blocks back to the system. Returns how many bytes that was.
  static std::size_t release_kept();

 private:
  static std::shared_ptr<std::byte[]> allocate(std::size_t size);

  std::shared_ptr<std::byte[]> data_;
  std::size_t size_ = 0;
};

}  // namespace ronde
