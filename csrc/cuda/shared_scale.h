// Integers of a step that ranks share, on a device (compress/shared_scale.h), with the bits of the
// processor's. All vectors lie in memory of the device, aligned to their elements; where integers
// are aligned to words, and what they are turned to to 16 bytes, it is as fast as the memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "kernels/kernels.h"  // (kernels/shared_scale.h would be that of the device)

namespace ronde::cuda {

struct Dequantise;  // what the kernels are given
struct ScaledBlocks;

class SharedScale {
 public:
  /// Throws ArgumentError unless `bits` is 2 to 8 and `block` a multiple of 128 up to kMaxBlock.
  SharedScale(Device& device, int bits, std::size_t block, Rounding rounding);

  std::size_t blocks(std::size_t count) const { return (count + block_ - 1) / block_; }

  /// Values, to which the residual is added unless it is null.
  struct Vector {
    const float* values;
    float* residual;
    std::size_t count;
  };

  /// Enqueues: stores the greatest magnitude of each block.
  void maxima(StreamHandle stream, const Vector& vector, float* maxima) const;

  /// Enqueues: stores the values in steps, which follow from the maxima; the residual becomes what
  /// that leaves out.
  void quantise(StreamHandle stream, const Vector& vector, const float* maxima, std::uint64_t key,
                std::int8_t* out) const;
  void quantise(StreamHandle stream, const Vector& vector, const float* maxima, std::uint64_t key,
                std::int16_t* out) const;

  /// Sums of integers, with the maxima that they were made of and what they are multiplied by.
  template <class T>
  struct Sums {
    const T* integers;
    const float* maxima;
    double factor;
  };

  /// Enqueues: stores the sums as floats, or adds them to those that are there.
  void dequantise(StreamHandle stream, const Sums<std::int8_t>& sums, float* out, std::size_t count,
                  Store store) const;
  void dequantise(StreamHandle stream, const Sums<std::int16_t>& sums, float* out,
                  std::size_t count, Store store) const;

  /// The length of a payload: for each block its step, and an int8 for each value.
  std::size_t capacity(std::size_t count) const { return blocks(count) * sizeof(float) + count; }

  /// Enqueues: stores the payload of a vector, aligned to 4 bytes.
  void encode(StreamHandle stream, const Vector& vector, Draw draw, std::byte* payload) const;

  /// Enqueues: decodes a payload of capacity(count) bytes, aligned to 4. *wrong becomes 1 where it
  /// holds what no encoder writes; then what is stored means nothing.
  void decode(StreamHandle stream, const std::byte* payload, float* out, std::size_t count,
              Store store, std::uint32_t* wrong) const;

 private:
  ScaledBlocks arrays(float* maxima, void* integers, std::size_t width, std::size_t count) const;
  ScaledBlocks payload(std::byte* payload, std::size_t count) const;
  void store_scales(StreamHandle stream, const Vector& vector, const ScaledBlocks& blocks) const;
  void store_integers(StreamHandle stream, const Vector& vector, const ScaledBlocks& blocks,
                      Integer integer, Draw draw) const;
  void restore(StreamHandle stream, const Dequantise& arguments, Integer integer,
               Store store) const;

  Device& device_;
  std::size_t block_;
  float levels_;
  Rounding rounding_;
};

}  // namespace ronde::cuda
