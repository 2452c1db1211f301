// Dot products of two vectors, added in an order that depends on their length alone.
//
// A block of elements is added as the processor does it (kernels/dot.inc): rows of 16, the products
// of each column one after another, then the 16 sums by halves. Here each of 16 lanes has a column.
// The sums of the 16 blocks of a group are added by halves too. Group g goes to sum g % 256, one
// after another, and these are added by halves again.
#include "dots.h"
#include "packets.h"

namespace ronde::cuda {
namespace {

constexpr u32 kRow = 16;
constexpr int kRows = 8;  // whose loads are under way at once
static_assert(kThreads == kDotGroup * kRow);

DEVICE void operator+=(DotSums& sums, const DotSums& other) {
  sums.left_left += other.left_left;
  sums.left_right += other.left_right;
  sums.right_right += other.right_right;
}

DEVICE DotSums from_lane_below(const DotSums& sums, u32 by) {
  return {__shfl_down_sync(kAllLanes, sums.left_left, by, kRow),
          __shfl_down_sync(kAllLanes, sums.left_right, by, kRow),
          __shfl_down_sync(kAllLanes, sums.right_right, by, kRow)};
}

/// The sums of 16 lanes by halves, in the first of them.
DEVICE void add_lanes(DotSums& sums) {
  UNROLL for (u32 half = kRow / 2; half > 0; half /= 2) sums += from_lane_below(sums, half);
}

/// One column of so many rows.
template <class T, int kCount>
DEVICE void add_rows(DotSums& sums, const T* left, const T* right) {
  T x[kCount], y[kCount];
  UNROLL for (int i = 0; i < kCount; ++i) {
    x[i] = left[i * kRow];
    y[i] = right[i * kRow];
  }
  UNROLL for (int i = 0; i < kCount; ++i) {
    const double a = Values<T>::widen(x[i]), b = Values<T>::widen(y[i]);
    sums += {a * a, a * b, b * b};
  }
}

/// One column of a block, or of what there is of it.
template <class T>
DEVICE DotSums add_column(const T* left, const T* right, u64 count) {
  const u32 column = threadIdx.x % kRow;
  const u32 rows = static_cast<u32>((count + kRow - 1 - column) / kRow);
  left += column;
  right += column;
  DotSums sums{};
  u32 row = 0;
  ROLLED for (; row + kRows <= rows; row += kRows)
      add_rows<T, kRows>(sums, left + row * kRow, right + row * kRow);
  ROLLED for (; row < rows; ++row) add_rows<T, 1>(sums, left + row * kRow, right + row * kRow);
  return sums;
}

DEVICE DotSums* sums_of_blocks() {
  __shared__ DotSums sums[kDotGroup];
  return sums;
}

template <class T>
DEVICE void add_products(const DotProducts& a) {
  DotSums* const blocks = sums_of_blocks();
  const u32 block = threadIdx.x / kRow;
  for (u64 group = blockIdx.x; group < a.groups; group += gridDim.x) {
    const u64 begin = (group * kDotGroup + block) * kDotBlock;
    const u64 left = begin < a.count ? a.count - begin : 0;
    DotSums sums =
        add_column(static_cast<const T*>(a.left) + begin, static_cast<const T*>(a.right) + begin,
                   left < kDotBlock ? left : kDotBlock);
    add_lanes(sums);
    if (threadIdx.x % kRow == 0) blocks[block] = sums;
    __syncthreads();
    if (threadIdx.x < kWarp) {
      DotSums all = blocks[threadIdx.x % kRow];
      add_lanes(all);
      if (threadIdx.x == 0) a.sums[group] = all;
    }
    __syncthreads();
  }
}

}  // namespace

KERNEL(dot_float16, DotProducts, a) { add_products<Half>(a); }
KERNEL(dot_bfloat16, DotProducts, a) { add_products<BFloat16>(a); }
KERNEL(dot_float32, DotProducts, a) { add_products<float>(a); }
KERNEL(dot_float64, DotProducts, a) { add_products<double>(a); }

KERNEL(dot_total, DotTotal, a) {
  __shared__ DotSums all[kThreads];
  DotSums sums{};
  for (u64 group = threadIdx.x; group < a.groups; group += kThreads) sums += a.sums[group];
  all[threadIdx.x] = sums;
  for (u32 half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) all[threadIdx.x] += all[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *a.total = all[0];
}

}  // namespace ronde::cuda
