// Memory that is not initialised, and lives as long as anybody holds it.
#pragma once

#include <cstddef>
#include <memory>

#include "core/buffer.h"

namespace ronde {

class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(std::size_t size) : data_(new std::byte[size]), size_(size) {}

  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  Buffer buffer() const { return {data(), size(), {}}; }

  /// The same memory as `size() / sizeof(T)` values.
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data());
  }

  /// Something to hold.
  std::shared_ptr<const void> owner() const { return data_; }

 private:
  std::shared_ptr<std::byte[]> data_;
  std::size_t size_ = 0;
};

}  // namespace ronde
