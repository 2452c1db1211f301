// Multiples of a step that ranks have agreed on: what the kernels of sums of integers
// (shared_scale.inc) work on.
//
// Nouns:
//   magnitude  as in select.h
//   integers   int8 or int16, one for each float
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/codec.h"

namespace ronde {

/// Multiples of `step`, at most `levels` on either side.
struct Grid {
  float step, levels;
};

/// The greatest magnitude of values + residual, which may be null.
using GreatestKernel = std::int32_t (*)(const float* values, const float* residual,
                                        std::size_t count);

/// Rounds values, with the residual unless it is null, to the grid, and stores how many steps they
/// are; the residual becomes what is left out.
using QuantiseKernel = void (*)(Grid grid, const float* values, float* residual, std::size_t count,
                                Draw draw, void* integers);

/// The integers times `scale`, rounded once.
using DequantiseKernel = void (*)(double scale, const void* integers, float* out,
                                  std::size_t count);

enum class Integer : std::uint8_t { int8, int16 };

struct SharedScaleKernels {
  GreatestKernel greatest;
  std::array<std::array<QuantiseKernel, 2>, 2> quantise;      // by Integer and Rounding
  std::array<std::array<DequantiseKernel, 2>, 2> dequantise;  // by Integer and Store
};

}  // namespace ronde
