#include "kernels/neutral.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace ronde {
namespace {

/// The values of a type: those that a reduction may need.
template <class T>
struct Values {
  T one, least, greatest;
};

template <class T>
constexpr Values<T> values_of() {
  using Limits = std::numeric_limits<T>;
  if constexpr (Limits::has_infinity) return {1, -Limits::infinity(), Limits::infinity()};
  return {1, Limits::min(), Limits::max()};
}

// The bits of half types.
constexpr Values<std::uint16_t> kFloat16{0x3c00, 0xfc00, 0x7c00}, kBfloat16{0x3f80, 0xff80, 0x7f80};
// Of bool, a sum and a maximum are "or", a product and a minimum "and".
constexpr Values<std::uint8_t> kBoolean{1, 0, 1};

template <class T>
void fill(const Reduction& reduction, Buffer data, const Values<T>& values) {
  T value = 0;
  const bool minimum = reduction.op == ReduceOp::min;
  if (reduction.op == ReduceOp::product)
    value = values.one;
  else if (reduction.op != ReduceOp::sum && reduction.prescale != 0)
    value = minimum == (reduction.prescale > 0) ? values.greatest : values.least;
  std::fill_n(reinterpret_cast<T*>(data.data), data.bytes / sizeof(T), value);
}

}  // namespace

bool has_neutral(const Reduction& reduction) {
  return reduction.op != ReduceOp::product || reduction.prescale == 1.0;
}

void fill_neutral(const Reduction& reduction, Buffer data) {
  switch (reduction.dtype) {
    case DType::boolean:
      return fill(reduction, data, kBoolean);
    case DType::int8:
      return fill(reduction, data, values_of<std::int8_t>());
    case DType::int16:
      return fill(reduction, data, values_of<std::int16_t>());
    case DType::int32:
      return fill(reduction, data, values_of<std::int32_t>());
    case DType::int64:
      return fill(reduction, data, values_of<std::int64_t>());
    case DType::uint8:
      return fill(reduction, data, values_of<std::uint8_t>());
    case DType::uint16:
      return fill(reduction, data, values_of<std::uint16_t>());
    case DType::uint32:
      return fill(reduction, data, values_of<std::uint32_t>());
    case DType::uint64:
      return fill(reduction, data, values_of<std::uint64_t>());
    case DType::float16:
      return fill(reduction, data, kFloat16);
    case DType::bfloat16:
      return fill(reduction, data, kBfloat16);
    case DType::float32:
      return fill(reduction, data, values_of<float>());
    case DType::float64:
      return fill(reduction, data, values_of<double>());
  }
}

}  // namespace ronde
