// Elementwise maths on spans of host memory. Knows no ranks.
//
// The kernels are written once (simd.inc), compiled for several instruction sets, and reached
// through a table that is chosen at start by what the processor offers. All sets give the same
// bits.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "core/dtype.h"
#include "core/reduction.h"
#include "kernels/codec.h"
#include "kernels/dot.h"
#include "kernels/low_rank.h"
#include "kernels/select.h"
#include "kernels/shared_scale.h"

namespace ronde {

/// Of so many contributions to every element.
struct Mean {
  const void* data;
  int contributions;
};

/// A vector and what it is multiplied by.
struct Weighted {
  const void* data;
  double weight;
};

using Inputs = std::span<const void* const>;
using Outputs = std::span<void* const>;

using ReduceKernel = void (*)(const Reduction& reduction, void* const* outs, std::size_t out_count,
                              const void* const* ins, std::size_t in_count, std::size_t count,
                              bool streaming);

using CopyKernel = void (*)(std::byte* to, const std::byte* from, std::size_t bytes,
                            bool streaming);

/// left x left_weight + right x right_weight
using WeightedKernel = void (*)(const void* left, double left_weight, const void* right,
                                double right_weight, void* out, std::size_t count);

/// Of the floating types, in the order of DType.
template <class Kernel>
using ByFloat = std::array<Kernel, kDTypeCount - static_cast<int>(DType::float16)>;

struct KernelTable {
  const char* name;
  CopyKernel copy;
  std::array<std::array<ReduceKernel, kDTypeCount>, kReduceOpCount> reduce;
  ByFloat<WeightedKernel> weighted_sums;
  ByFloat<DotsKernel> dot_products;
  std::array<CodecKernels, kCodes> codecs;
  SelectKernels select;
  LowRankKernels low_rank;
  SharedScaleKernels shared_scale;

  /// See below.
  void reduce_many(const Reduction& reduction, Outputs outs, Inputs ins, std::size_t count,
                   bool streaming) const;
  void mean(DType dtype, void* out, const Mean& left, const Mean& right, std::size_t count) const;
  void add_weighted(DType dtype, void* out, const Weighted& left, const Weighted& right,
                    std::size_t count) const;
  Dots dots(DType dtype, const void* left, const void* right, std::size_t count) const;

  const CodecKernels& codec(Code code) const { return codecs[static_cast<int>(code)]; }
};

/// What the processor can run, best first. RONDE_SIMD=baseline|avx2|avx512 chooses another.
const KernelTable& kernels();

/// The table of that name, or null if this build or this processor has no such thing.
const KernelTable* kernels(const char* name);

/// Reduces inputs of `count` elements in order, in[0] op in[1] op ..., in one pass, and stores the
/// result to every output (at least one of either). An output may be one of the inputs itself;
/// otherwise nothing overlaps. Memory needs no alignment beyond the element's.
///
/// Floating point: every operation is rounded once, and float16 and bfloat16 are computed in
/// float32 and rounded once at the end. Min and max give one canonical NaN if an element is NaN,
/// and take -0 for less than +0. Integers wrap. bool: sum and max are "or", product and min "and".
///
/// Floating types are scaled as `reduction` says: each input is multiplied by prescale, the result
/// divided by divisor and multiplied by postscale, in the type of the computation; an average of a
/// half type is multiplied by both factors at the end, and its sum is kept from overflowing in
/// float32. One input that is not scaled is copied.
///
/// `streaming`: the results go around the caches, for memory that will not be read soon, and are
/// visible before what the caller releases next. Of several outputs the first does not.
inline void reduce_many(const Reduction& reduction, Outputs outs, Inputs ins, std::size_t count,
                        bool streaming) {
  kernels().reduce_many(reduction, outs, ins, count, streaming);
}

/// memcpy, but fast wherever the two lie in their pages (copy.inc); around the caches where
/// `streaming`. For everything that may be longer than a few hundred bytes.
inline void copy_bytes(void* to, const void* from, std::size_t bytes, bool streaming = false) {
  kernels().copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes,
                 streaming);
}

/// out[i] = left[i] op right[i]
inline void reduce(ReduceOp op, DType dtype, void* out, const void* left, const void* right,
                   std::size_t count) {
  const void* const ins[] = {left, right};
  reduce_many({.dtype = dtype, .op = op}, {&out, 1}, ins, count, false);
}

/// The mean of the contributions to both, of a half type: in float32, rounded once.
inline void mean(DType dtype, void* out, const Mean& left, const Mean& right, std::size_t count) {
  kernels().mean(dtype, out, left, right, count);
}

/// The weighted sum of two vectors of a floating type: half types in float32, rounded once. `out`
/// may be one of them.
inline void add_weighted(DType dtype, void* out, const Weighted& left, const Weighted& right,
                         std::size_t count) {
  kernels().add_weighted(dtype, out, left, right, count);
}

/// The dot products of two vectors of a floating type, in double precision.
inline Dots dots(DType dtype, const void* left, const void* right, std::size_t count) {
  return kernels().dots(dtype, left, right, count);
}

/// Before its reduction: multiplies a contribution, in place.
inline void prescale(const Reduction& reduction, void* data, std::size_t count) {
  if (reduction.averages_halves()) return;
  reduce_many({.dtype = reduction.dtype, .prescale = reduction.prescale}, {&data, 1}, {&data, 1},
              count, false);
}

/// After its reduction: divides and multiplies the result, in place.
inline void postscale(const Reduction& reduction, void* data, std::size_t count) {
  Reduction scaling = reduction;
  scaling.prescale = 1.0;
  reduce_many(scaling, {&data, 1}, {&data, 1}, count, false);
}

}  // namespace ronde
