// What the kernels of weighted.cu are given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// weighted_<dtype>
struct AddWeighted {
  void* out;  // may be one of the inputs; otherwise nothing overlaps
  const void* left;
  const void* right;
  double left_weight, right_weight;
  u64 count;
};

}  // namespace ronde::cuda
