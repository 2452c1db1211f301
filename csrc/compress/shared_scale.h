// Integers of a step that all ranks share, so that their sums are integers too (as with the
// integers of SwitchML, Sapio et al. 2021, and IntSGD, Mishchenko et al. 2022).
//
//   1  max = the greatest |value + residual| of each block         maxima, one pass over memory
//   2  the maxima of all ranks, by an exact allreduce
//   3  q = x / step, rounded, step = max / (2^(bits-1) - 1)        quantise, a second pass
//   4  the sum of q over the ranks, by an exact allreduce of integers
//   5  the result is the sum times the step                        dequantise, a third pass
//
// A value is rounded once, on its own rank, whose residual holds what that leaves out. Steps,
// rounding and what NaN, infinity and very small values become are those of the linear quantiser
// (quantiser.h) with the norm max.
//
// A payload by itself is, for each block, its own step (float32) and an int8 for each value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/compressor.h"
#include "kernels/kernels.h"

namespace ronde {

class SharedScale final : public Compressor {
 public:
  /// Throws ArgumentError unless `bits` is 2 to 8 and `block` a multiple of 128 up to kMaxBlock.
  SharedScale(int bits, std::size_t block, Rounding rounding,
              const KernelTable& kernels = ronde::kernels());

  /// In which the integers of so many ranks are added: int8, or int16. Throws ArgumentError if in
  /// neither.
  DType integer(int ranks) const;

  int bits() const;
  Rounding rounding() const { return rounding_; }
  std::size_t blocks(std::size_t count) const { return (count + block_ - 1) / block_; }

  /// The greatest |value + residual| of each block, of a residual that may be empty; infinite or
  /// NaN if one is. All functions throw ArgumentError where the lengths of spans do not fit.
  void maxima(std::span<const float> values, std::span<const float> residual,
              std::span<float> maxima) const;

  /// The values in steps, which follow from the maxima of all ranks. The residual, unless it is
  /// empty, is added to them and becomes the rounding error; zero where a maximum is not finite.
  void quantise(std::span<const float> values, std::span<const float> maxima,
                std::span<float> residual, std::uint64_t key, std::span<std::int8_t> out) const;
  void quantise(std::span<const float> values, std::span<const float> maxima,
                std::span<float> residual, std::uint64_t key, std::span<std::int16_t> out) const;

  /// Sums of such integers times their steps and `factor`, rounded once; NaN where a maximum is not
  /// finite.
  void dequantise(std::span<const std::int8_t> sums, std::span<const float> maxima, double factor,
                  std::span<float> out) const;
  void dequantise(std::span<const std::int16_t> sums, std::span<const float> maxima, double factor,
                  std::span<float> out) const;

  std::size_t grain() const override { return block_; }
  std::size_t capacity(std::size_t count) const override;
  std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::byte* payload) const override;
  void decode(std::span<const std::byte> payload, std::span<float> out, Store store) const override;
  bool unbiased() const override { return rounding_ == Rounding::stochastic; }

 private:
  template <class F>
  void for_blocks(std::size_t count, F f) const;
  template <class T>
  void quantise_all(std::span<const float> values, std::span<const float> maxima,
                    std::span<float> residual, std::uint64_t key, std::span<T> out) const;
  template <class T>
  void dequantise_all(std::span<const T> sums, std::span<const float> maxima, double factor,
                      std::span<float> out) const;
  template <class T>
  void quantise_block(float step, std::span<const float> values, std::span<float> residual,
                      Draw draw, T* out) const;
  float step_of(float max) const;
  void check_step(float step) const;

  std::size_t block_;
  float levels_;
  Rounding rounding_;
  const SharedScaleKernels& kernels_;
};

}  // namespace ronde
