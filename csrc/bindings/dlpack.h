// What DLPack lays down (https://dmlc.github.io/dlpack, version 1), as far as memory of GPUs needs
// it.
#pragma once

#include <cstdint>

namespace ronde::dlpack {

constexpr std::int32_t kCuda = 2;  // a kind of device

struct Device {
  std::int32_t kind;
  std::int32_t number;
};

enum Code : std::uint8_t { kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;

  bool operator==(const DataType&) const = default;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t dimensions;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null if they are those of C's order
  std::uint64_t byte_offset;
};

/// A capsule of the name `kName` has one, until somebody takes it and names the capsule `kTaken`.
struct Managed {
  static constexpr auto kName = "dltensor", kTaken = "used_dltensor";

  Tensor tensor;
  void* context;
  void (*end)(Managed* self);  // may be null
};

/// The same of version 1, for those who know it.
struct Versioned {
  static constexpr auto kName = "dltensor_versioned", kTaken = "used_dltensor_versioned";
  static constexpr std::uint64_t kReadOnly = 1;

  std::uint32_t major, minor;
  void* context;
  void (*end)(Versioned* self);  // may be null
  std::uint64_t flags;
  Tensor tensor;
};

}  // namespace ronde::dlpack
