// What the kernels of reduce.cu are given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// Inputs that are reduced in one pass, at most.
inline constexpr int kMostInputs = 8;

/// reduce_<op>_<dtype>
struct Reduce {
  void* out;  // may be one of the inputs; otherwise nothing overlaps
  const void* ins[kMostInputs];
  int in_count;
  u64 count;
  double prescale, divisor, postscale;  // floating types only
};

}  // namespace ronde::cuda
