// Elementwise maths on spans of host memory. Knows no ranks.
//
// The kernels are written once (simd.inc), compiled for several instruction sets, and reached
// through a table that is chosen at start by what the processor offers. All sets give the same
// bits.
#pragma once

#include <cstddef>

#include "core/dtype.h"
#include "core/reduction.h"

namespace ronde {

/// out[i] = left[i] op right[i]. `out` may be `left` or `right` itself; it must not overlap them
/// otherwise.
///
/// Floating point: sums and products are rounded once; float16 and bfloat16 are computed in float32
/// and rounded once. Min and max give one canonical NaN if an operand is NaN, and take -0 for less
/// than +0. Integers wrap. bool: sum and max are "or", product and min are "and".
using ReduceKernel = void (*)(void* out, const void* left, const void* right, std::size_t count);

/// data[i] *= factor, or data[i] /= factor; floating types only: in float64 for float64, else in
/// float32, rounded once.
using ScaleKernel = void (*)(void* data, double factor, std::size_t count);

struct KernelTable {
  const char* name;
  ReduceKernel reduce[kReduceOpCount][kDTypeCount];
  ScaleKernel multiply[kDTypeCount];  // null where the type is not floating
  ScaleKernel divide[kDTypeCount];
};

/// What the processor can run, best first. RONDE_SIMD=baseline|avx2|avx512 chooses another.
const KernelTable& kernels();

/// The table of that name, or null if this build or this processor has no such thing.
const KernelTable* kernels(const char* name);

inline void reduce(ReduceOp op, DType dtype, void* out, const void* left, const void* right,
                   std::size_t count) {
  kernels().reduce[static_cast<int>(op)][static_cast<int>(dtype)](out, left, right, count);
}

/// Before its reduction: multiplies a contribution.
inline void prescale(const Reduction& reduction, void* data, std::size_t count) {
  if (reduction.prescale != 1.0)
    kernels().multiply[static_cast<int>(reduction.dtype)](data, reduction.prescale, count);
}

/// After its reduction: divides and multiplies the result.
inline void postscale(const Reduction& reduction, void* data, std::size_t count) {
  if (reduction.divisor != 1.0)
    kernels().divide[static_cast<int>(reduction.dtype)](data, reduction.divisor, count);
  if (reduction.postscale != 1.0)
    kernels().multiply[static_cast<int>(reduction.dtype)](data, reduction.postscale, count);
}

}  // namespace ronde
