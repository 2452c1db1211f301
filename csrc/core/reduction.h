// What a reduction does to its elements.
#pragma once

#include <bit>
#include <cstddef>

#include "core/dtype.h"

namespace ronde {

struct Reduction {
  DType dtype = DType::float32;
  ReduceOp op = ReduceOp::sum;
  double prescale = 1.0;   // multiplies each contribution; floating types only, as are the next two
  double divisor = 1.0;    // divides the result: the number of ranks, for an average
  double postscale = 1.0;  // multiplies what comes then
  bool adaptive = false;   // a sum by coefficients for each array: Adasum (collective/adasum.h)

  bool operator==(const Reduction&) const = default;

  /// An average of a half type, whose sum may not fit the type that the average fits. So a partial
  /// result that is rounded is the mean of the contributions so far, and as an average is linear,
  /// both factors are applied to the end result.
  bool averages_halves() const { return op == ReduceOp::sum && divisor != 1.0 && is_half(dtype); }

  bool scales() const { return prescale != 1.0 || divisor != 1.0 || postscale != 1.0; }

  /// The factors by which a kernel multiplies, divides and multiplies that reduces so many inputs.
  Reduction of(std::size_t inputs) const {
    Reduction done = *this;
    if (!averages_halves()) return done;
    // Inputs of the range of float32 leave room for their sum. A power of two changes no bits.
    const bool wide = dtype == DType::bfloat16;
    done.prescale = wide ? 1.0 / static_cast<double>(std::bit_ceil(inputs)) : 1.0;
    done.divisor *= done.prescale;
    done.postscale *= prescale;
    return done;
  }
};

}  // namespace ronde
