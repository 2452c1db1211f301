// The element types that collectives understand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ronde {

enum class DType : std::uint8_t {
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  float16,
  bfloat16,
  float32,
  float64,
};

inline constexpr int kDTypeCount = 13;

constexpr std::size_t size_of(DType dtype) {
  constexpr std::size_t sizes[kDTypeCount] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return sizes[static_cast<int>(dtype)];
}

constexpr std::string_view name_of(DType dtype) {
  constexpr std::string_view names[kDTypeCount] = {
      "bool",   "int8",   "int16",   "int32",    "int64",   "uint8",  "uint16",
      "uint32", "uint64", "float16", "bfloat16", "float32", "float64"};
  return names[static_cast<int>(dtype)];
}

constexpr bool is_floating(DType dtype) { return dtype >= DType::float16; }
constexpr bool is_half(DType dtype) { return dtype == DType::float16 || dtype == DType::bfloat16; }

enum class ReduceOp : std::uint8_t { sum, product, min, max };

inline constexpr int kReduceOpCount = 4;

constexpr std::string_view name_of(ReduceOp op) {
  constexpr std::string_view names[kReduceOpCount] = {"sum", "product", "min", "max"};
  return names[static_cast<int>(op)];
}

}  // namespace ronde
