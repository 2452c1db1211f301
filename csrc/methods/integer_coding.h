// The arithmetic of sums of integers (integer_sums.h), apart from the sums over ranks: on the host,
// or enqueued on the GPU that has the values. All spans are memory of the same kind, and the bits
// are the same. compress/shared_scale.h says what is computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "compress/shared_scale.h"
#include "cuda/order.h"
#include "cuda/shared_scale.h"

namespace ronde {

class IntegerCoding {
 public:
  virtual ~IntegerCoding() = default;

  /// Of `values` plus the residual, which may be empty.
  virtual void maxima(std::span<const float> values, std::span<float> residual,
                      std::span<float> maxima) = 0;

  /// Values in steps, which follow from the maxima of all ranks.
  struct Values {
    std::span<const float> values;
    std::span<float> residual;  // becomes what is left out, or is empty
    std::span<const float> maxima;
    std::uint64_t key;
  };
  virtual void quantise(const Values& values, std::span<std::int8_t> out) = 0;
  virtual void quantise(const Values& values, std::span<std::int16_t> out) = 0;

  /// Sums of integers times their steps and a factor.
  template <class Integer>
  struct Sums {
    std::span<const Integer> integers;
    std::span<const float> maxima;
    double factor;
  };
  virtual void dequantise(const Sums<std::int8_t>& sums, std::span<float> out) = 0;
  virtual void dequantise(const Sums<std::int16_t>& sums, std::span<float> out) = 0;
};

class HostIntegers final : public IntegerCoding {
 public:
  explicit HostIntegers(const SharedScale& scale) : scale_(scale) {}

  void maxima(std::span<const float> values, std::span<float> residual,
              std::span<float> maxima) override;
  void quantise(const Values& values, std::span<std::int8_t> out) override;
  void quantise(const Values& values, std::span<std::int16_t> out) override;
  void dequantise(const Sums<std::int8_t>& sums, std::span<float> out) override;
  void dequantise(const Sums<std::int16_t>& sums, std::span<float> out) override;

 private:
  const SharedScale& scale_;
};

class GpuIntegers final : public IntegerCoding {
 public:
  GpuIntegers(const SharedScale& scale, const cuda::Queue& queue);

  void maxima(std::span<const float> values, std::span<float> residual,
              std::span<float> maxima) override;
  void quantise(const Values& values, std::span<std::int8_t> out) override;
  void quantise(const Values& values, std::span<std::int16_t> out) override;
  void dequantise(const Sums<std::int8_t>& sums, std::span<float> out) override;
  void dequantise(const Sums<std::int16_t>& sums, std::span<float> out) override;

 private:
  const cuda::StreamHandle stream_;
  const cuda::SharedScale scale_;
};

}  // namespace ronde
