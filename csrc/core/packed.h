// Structures as bytes, for ranks of the same build. A structure says once what is in it, for both
// directions: `each_field(archive, self)` calls `archive(self.field, ...)`.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/error.h"

namespace ronde {

class Packer {
 public:
  template <class... Values>
  void operator()(const Values&... values) {
    (put(values), ...);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class Value>
  void put(const Value& value) {
    if constexpr (std::is_trivially_copyable_v<Value>)
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    else
      Value::each_field(*this, value);
  }
  void put(const std::string& text) {
    put(text.size());
    bytes_ += text;
  }
  template <class Value>
  void put(const std::vector<Value>& values) {
    put(values.size());
    for (const auto& value : values) put(value);
  }
  template <class Value>
  void put(const std::optional<Value>& value) {
    put(value.has_value());
    if (value) put(*value);
  }

  std::string bytes_;
};

class Unpacker {
 public:
  /// `bytes` outlives it.
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}

  template <class... Values>
  void operator()(Values&... values) {
    (take(values), ...);
  }

 private:
  template <class Value>
  void take(Value& value) {
    if constexpr (std::is_trivially_copyable_v<Value>)
      std::memcpy(&value, next(sizeof value).data(), sizeof value);
    else
      Value::each_field(*this, value);
  }
  void take(std::string& text) { text = next(length()); }
  template <class Value>
  void take(std::vector<Value>& values) {
    values.clear();
    for (auto more = length(); more > 0; --more) take(values.emplace_back());
  }
  template <class Value>
  void take(std::optional<Value>& value) {
    bool there = false;
    take(there);
    value.reset();
    if (there) take(value.emplace());
  }

  std::size_t length() {
    std::size_t length = 0;
    take(length);
    return length;
  }
  std::string_view next(std::size_t bytes) {
    if (bytes_.size() < bytes) throw Error("a description of a call was cut off");
    const auto part = bytes_.substr(0, bytes);
    bytes_.remove_prefix(bytes);
    return part;
  }

  std::string_view bytes_;
};

template <class Value>
std::string packed(const Value& value) {
  Packer packer;
  packer(value);
  return packer.bytes();
}

template <class Value>
Value unpacked(std::string_view bytes) {
  Value value;
  Unpacker unpacker(bytes);
  unpacker(value);
  return value;
}

}  // namespace ronde
