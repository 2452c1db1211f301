// What a reduction does to its elements.
#pragma once

#include "core/dtype.h"

namespace ronde {

struct Reduction {
  DType dtype = DType::float32;
  ReduceOp op = ReduceOp::sum;
  double prescale = 1.0;   // multiplies each contribution; floating types only, as are the next two
  double divisor = 1.0;    // divides the result: the number of ranks, for an average
  double postscale = 1.0;  // multiplies what comes then
};

}  // namespace ronde
