// A matrix times a few vectors, and back (csrc/kernels/low_rank.inc): every sum is added in the
// order of the processor's, so what runs in parallel is what that order leaves free.
//
//   project       the 16 lanes of a row of a tile are half a warp; warps have tiles side by
//                 side, whose sums are then added one by one
//   back_project  sums over fours of rows are made in parallel, and added one by one for each
//                 column and vector
//   reconstruct   nothing depends on anything else
#include "device.h"
#include "low_rank.h"

namespace ronde::cuda {
namespace {

constexpr u32 kRow = 16, kFew = 4, kWarps = kThreads / kWarp;

struct alignas(16) Four {
  float of[4];
};

// Project -----------------------------------------------------------------------------------------

constexpr u32 kTall = 2;                       // rows of half a warp
constexpr u32 kMostRows = kWarps * kWarpRows;  // of a block

/// What half a warp is at: some columns of its rows.
struct Place {
  u64 first;  // this lane's element of the first row
  u64 pitch;  // from a row to the next: 0 if there is but one, which then is done twice
  u32 wide;   // columns that there are

  DEVICE u64 at(u32 r, u32 step) const { return first + r * pitch + step * kRow; }
  DEVICE bool there(u32 step) const { return step * kRow + threadIdx.x % kRow < wide; }
};

/// Loads what is there, of matrix + residual if that is not null, and stores that to the residual.
/// Of more than one step all is there.
template <u32 kSteps>
DEVICE void load_part(const float* matrix, float* residual, const Place& place,
                      float (&x)[kTall][kSteps]) {
  float left_out[kTall][kSteps];
  UNROLL for (u32 r = 0; r < kTall; ++r) {
    UNROLL for (u32 step = 0; step < kSteps; ++step) {
      const bool there = kSteps > 1 || place.there(step);
      x[r][step] = there ? matrix[place.at(r, step)] : 0;
      left_out[r][step] = residual && there ? residual[place.at(r, step)] : 0;
    }
  }
  if (!residual) return;
  UNROLL for (u32 r = 0; r < kTall; ++r) {
    UNROLL for (u32 step = 0; step < kSteps; ++step) {
      x[r][step] += left_out[r][step];
      if (kSteps > 1 || place.there(step)) residual[place.at(r, step)] = x[r][step];
    }
  }
}

/// Adds the products with a few vectors to this lane's sums. `right`: this lane's element of each.
template <u32 kSteps>
DEVICE void add_part(const Place& place, const float (&x)[kTall][kSteps],
                     const float* const (&right)[kFew], u32 done, float (&dots)[kTall][kFew]) {
  UNROLL for (u32 step = 0; step < kSteps; ++step) {
    UNROLL for (u32 v = 0; v < kFew; ++v) {
      const bool there = kSteps > 1 || place.there(step);
      const float q = there ? __ldg(right[v] + done + step * kRow) : 0;
      UNROLL for (u32 r = 0; r < kTall; ++r) dots[r][v] += x[r][step] * q;
    }
  }
}

template <u32 kSteps>
DEVICE void project_part(const float* matrix, float* residual, const Place& place,
                         const float* const (&right)[kFew], u32 done, float (&dots)[kTall][kFew]) {
  float x[kTall][kSteps];
  load_part(matrix, residual, place, x);
  add_part(place, x, right, done, dots);
}

/// The sum over the lanes of half a warp.
DEVICE float sum_of_lanes(float x) {
  UNROLL for (u32 by = kRow / 2; by > 0; by /= 2) x += __shfl_xor_sync(kAllLanes, x, by, kRow);
  return x;
}

/// Stores the products of a tile of half a warp's rows with vectors `k` and on, those of a row to a
/// row of `sums`.
DEVICE void project_tile(const Project& a, u64 row, u64 column, u32 k,
                         float (*sums)[kMostVectors]) {
  constexpr u32 kSteps = 4, kWide = kSteps * kRow;  // under way at once
  const u32 lane = threadIdx.x % kRow;
  const u32 wide =
      a.columns - column < kTileColumns ? static_cast<u32>(a.columns - column) : kTileColumns;
  const u32 here = row < a.rows ? wide : 0;
  // What is stored to the residual is read from there for other vectors, by the same thread.
  const float* const matrix = a.residual && k > 0 ? a.residual : a.matrix;
  float* const residual = k == 0 ? a.residual : nullptr;
  const float* right[kFew];  // those behind the last are the last again
  UNROLL for (u32 v = 0; v < kFew; ++v) {
    right[v] = a.right + (k + v < a.rank ? k + v : a.rank - 1) * a.columns + column + lane;
  }
  float dots[kTall][kFew]{};
  Place place{row * a.columns + column + lane, row + 1 < a.rows ? a.columns : 0, here};
  const auto go_on = [&](u32 columns) {
    place.first += columns;
    place.wide -= columns;
  };
  u32 done = 0;
  ROLLED for (; done + kWide <= here; done += kWide, go_on(kWide)) {
    project_part<kSteps>(matrix, residual, place, right, done, dots);
  }
  ROLLED for (; done < here; done += kRow, go_on(kRow)) {
    project_part<1>(matrix, residual, place, right, done, dots);
  }
  UNROLL for (u32 r = 0; r < kTall; ++r) {
    UNROLL for (u32 v = 0; v < kFew; ++v) {
      const float sum = sum_of_lanes(dots[r][v]);
      if (lane == 0) sums[r][k + v] = sum;
    }
  }
}

DEVICE void project(const Project& a) {
  __shared__ float sums[kWarps * kWarpRows][kMostVectors];  // of a tile of each warp
  __shared__ double totals[kMostRows * kMostVectors];       // each of one thread
  const u32 warp = threadIdx.x / kWarp, half = threadIdx.x % kWarp / kRow;
  const u32 tall = kWarps / a.across * kWarpRows;  // rows of a block
  const u64 tiles = (a.columns + kTileColumns - 1) / kTileColumns;
  for (u64 first = u64{blockIdx.x} * tall; first < a.rows; first += u64{gridDim.x} * tall) {
    const u64 row = first + warp / a.across * kWarpRows + half * kTall;
    for (u64 tile = 0; tile < tiles; tile += a.across) {
      const u64 own = tile + warp % a.across;
      ROLLED for (u32 k = 0; k < a.rank && own < tiles; k += kFew) {
        project_tile(a, row, own * kTileColumns, k, sums + warp * kWarpRows + half * kTall);
      }
      __syncthreads();
      const u32 there = tiles - tile < a.across ? static_cast<u32>(tiles - tile) : a.across;
      for (u32 i = threadIdx.x; i < tall * a.rank; i += kThreads) {
        const u32 r = i % tall, k = i / tall;
        const u32 from = r / kWarpRows * a.across * kWarpRows + r % kWarpRows;
        double total = tile > 0 ? totals[i] : 0;
        ROLLED for (u32 t = 0; t < there; ++t) total += sums[from + t * kWarpRows][k];
        totals[i] = total;
        if (tile + there == tiles && first + r < a.rows)
          a.left[k * a.rows + first + r] = static_cast<float>(total);
      }
      __syncthreads();
    }
  }
}

// Back-project ------------------------------------------------------------------------------------

constexpr u32 kHalves = kThreads / kRow;
constexpr u32 kEach = 4, kGroups = kHalves * kEach;  // of rows, of half a warp and of a block

/// Rows that are added first: fours, and those that are left, one by one.
struct Group {
  u64 row;
  u32 tall;  // 4, 1, or 0 behind the last

  DEVICE Group(u64 rows, u64 number) {
    const u64 fours = rows / 4, all = fours + rows % 4;
    row = number < fours ? number * 4 : fours * 3 + number;
    tall = number < fours ? 4 : number < all ? 1 : 0;
  }
};

/// Half a warp has a column in each lane, and each 16th group of rows from `first` on.
DEVICE void load_groups(const BackProject& a, u64 first, u64 column, Four (&x)[kEach]) {
  UNROLL for (u32 i = 0; i < kEach; ++i) {
    const Group group(a.rows, first + i * kHalves + threadIdx.x / kRow);
    UNROLL for (u32 r = 0; r < 4; ++r) {
      const bool there = r < group.tall && column < a.columns;
      x[i].of[r] = there ? __ldcs(a.matrix + (group.row + r) * a.columns + column) : 0;
    }
  }
}

DEVICE float sum_of_group(const Four& f, const Four& x, u32 tall) {
  const float first = f.of[0] * x.of[0];
  if (tall < 4) return first;
  return (first + f.of[1] * x.of[1]) + (f.of[2] * x.of[2] + f.of[3] * x.of[3]);
}

struct Sums {
  Four factors[kGroups][kFew];
  float sums[kFew][kGroups + 1][kRow];  // (one more, so that vectors are in other banks)
};

/// Stores the factors of these groups for vectors `k` and on: a thread for each.
DEVICE void load_factors(const BackProject& a, u64 first, u32 k, Sums& shared) {
  static_assert(kThreads == kGroups * kFew);
  const u32 number = threadIdx.x % kGroups, v = threadIdx.x / kGroups;
  const Group group(a.rows, first + number);
  Four f;
  UNROLL for (u32 r = 0; r < 4; ++r) {
    const bool there = r < group.tall && k + v < a.rank;
    f.of[r] = there ? __ldg(a.left + (k + v) * a.rows + group.row + r) : 0;
  }
  shared.factors[number][v] = f;
}

DEVICE void sum_groups(const BackProject& a, u64 first, const Four (&x)[kEach], Sums& shared) {
  UNROLL for (u32 i = 0; i < kEach; ++i) {
    const u32 number = i * kHalves + threadIdx.x / kRow;
    const u32 tall = Group(a.rows, first + number).tall;
    UNROLL for (u32 v = 0; v < kFew; ++v) {
      const float sum = sum_of_group(shared.factors[number][v], x[i], tall);
      shared.sums[v][number][threadIdx.x % kRow] = sum;
    }
  }
}

/// One by one, in the order of the rows.
DEVICE float add_groups(float total, const float (*sums)[kRow], u32 count) {
  constexpr u32 kLoads = 8;
  ROLLED for (u32 g = 0; g < count; g += kLoads) {
    float x[kLoads];
    UNROLL for (u32 i = 0; i < kLoads; ++i) x[i] = sums[g + i][threadIdx.x % kRow];
    UNROLL for (u32 i = 0; i < kLoads; ++i) {
      if (g + i < count) total += x[i];
    }
  }
  return total;
}

DEVICE void back_project(const BackProject& a) {
  __shared__ Sums shared;
  __shared__ float totals[kMostVectors][kRow];  // each of one thread
  const u64 groups = a.rows / 4 + a.rows % 4;
  for (u64 begin = u64{blockIdx.x} * kRow; begin < a.columns; begin += u64{gridDim.x} * kRow) {
    const u64 column = begin + threadIdx.x % kRow;
    Four x[kEach];
    load_groups(a, 0, column, x);
    for (u64 first = 0; first < groups; first += kGroups) {
      const u32 there = groups - first < kGroups ? static_cast<u32>(groups - first) : kGroups;
      for (u32 k = 0; k < a.rank; k += kFew) {
        load_factors(a, first, k, shared);
        __syncthreads();
        sum_groups(a, first, x, shared);
        if (k + kFew >= a.rank) load_groups(a, first + kGroups, column, x);  // for the next
        __syncthreads();
        const u32 v = threadIdx.x / kRow;
        if (v >= kFew || k + v >= a.rank) continue;
        float& total = totals[k + v][threadIdx.x % kRow];
        total = add_groups(first > 0 ? total : 0, shared.sums[v], there);
        if (first + there == groups && column < a.columns)
          a.right[(k + v) * a.columns + column] = total;
      }
    }
  }
}

// Reconstruct -------------------------------------------------------------------------------------

constexpr u32 kMostFactors = kThreads / kWarp * kThreadRows;  // rows of the narrowest tile

/// A tile: its left vectors are stored, and then each thread has a column in a few rows.
DEVICE void reconstruct_tile(const Reconstruct& a, u64 first, u64 begin,
                             Four (*factors)[kMostFactors / 4]) {
  const u32 tall = kThreads / a.wide * kThreadRows, inside = threadIdx.x / a.wide * kThreadRows;
  const u64 column = begin + threadIdx.x % a.wide, row = first + inside;
  const u64 at = row * a.columns + column;
  float left_out[kThreadRows], sums[kThreadRows]{};
  UNROLL for (u32 r = 0; r < kThreadRows; ++r) {
    const bool there = row + r < a.rows && column < a.columns;
    left_out[r] = a.residual && there ? a.residual[at + r * a.columns] : 0;
  }
  for (u32 i = threadIdx.x; i < tall * a.rank; i += kThreads) {
    const u32 r = i % tall, k = i / tall;
    factors[k][r / 4].of[r % 4] = first + r < a.rows ? __ldg(a.left + k * a.rows + first + r) : 0;
  }
  __syncthreads();
  for (u32 k = 0; k < a.rank; ++k) {
    const float q = column < a.columns ? __ldg(a.right + k * a.columns + column) : 0;
    UNROLL for (u32 r = 0; r < kThreadRows; r += 4) {
      const Four f = factors[k][(inside + r) / 4];
      UNROLL for (u32 i = 0; i < 4; ++i) sums[r + i] += f.of[i] * q;
    }
  }
  UNROLL for (u32 r = 0; r < kThreadRows; ++r) {
    if (row + r >= a.rows || column >= a.columns) break;
    if (a.residual) a.residual[at + r * a.columns] = left_out[r] - sums[r] * a.share;
    a.out[at + r * a.columns] = sums[r] * a.factor;
  }
  __syncthreads();
}

/// The sum is not known: the residual becomes what it was, but for rounding.
DEVICE void give_up(const Reconstruct& a) {
  for (u64 i = thread(); i < a.rows * a.columns; i += threads()) {
    if (a.residual) {
      const float before = a.residual[i] - a.matrix[i];
      const bool finite = (__float_as_uint(before) & 0x7f800000) != 0x7f800000;
      a.residual[i] = finite ? before : 0;
    }
    a.out[i] = __uint_as_float(0x7fc00000);
  }
}

DEVICE void reconstruct(const Reconstruct& a) {
  if (a.finite && *a.finite == 0) return give_up(a);
  __shared__ Four factors[kMostVectors][kMostFactors / 4];
  const u32 tall = kThreads / a.wide * kThreadRows;
  const u32 across = static_cast<u32>((a.columns + a.wide - 1) / a.wide);
  const u32 tiles = across * static_cast<u32>((a.rows + tall - 1) / tall);
  for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x)
    reconstruct_tile(a, u64{tile / across} * tall, u64{tile % across} * a.wide, factors);
}

// Keep --------------------------------------------------------------------------------------------

DEVICE void keep(const Keep& a) {
  if (*a.finite == 0) return;
  const u64 begin = blockIdx.x * a.length;
  bool any = false;
  for (u64 i = begin + threadIdx.x; i < begin + a.length; i += kThreads) {
    const float x = a.from[i];
    any |= x != 0;
    a.to[i] = x;
  }
  if (!__syncthreads_or(any) && threadIdx.x == 0) atomicOr(a.zeros, 1u << blockIdx.x);
}

}  // namespace

KERNEL(low_rank_project, Project, a) { project(a); }
KERNEL(low_rank_back_project, BackProject, a) { back_project(a); }
KERNEL(low_rank_reconstruct, Reconstruct, a) { reconstruct(a); }
KERNEL(low_rank_keep, Keep, a) { keep(a); }

}  // namespace ronde::cuda
