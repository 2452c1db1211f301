// How the largest are found and made entries (selection.h has the types). Included by kernel files,
// after device.h.
#pragma once

#include "block.h"
#include "selection.h"

namespace ronde::cuda {
namespace {

// Digits ------------------------------------------------------------------------------------------

inline constexpr u32 kGreatestFinite = 0x7f7fffff;

/// The bits of |x|: they order like integers, infinity and then NaN behind all others.
DEVICE u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffff; }

/// The lowest bit of a digit. One digit after another is found, each by a histogram of those
/// magnitudes that begin like the one that is looked for.
template <int kDigit>
inline constexpr u32 kLowest = 20 - 10 * kDigit;

template <int kDigit>
inline constexpr u32 kBins = kDigit == 0 ? kMostBins : 1024;

/// The first digit of infinity. Those from here on are of what is not finite.
inline constexpr u32 kInfinite = 0x7f800000 >> kLowest<0>;

/// When all digits are known. All that is not finite is selected.
DEVICE Cut cut_at(Known known) {
  return known.rank == 0 ? Cut{kGreatestFinite, 0} : Cut{known.magnitude, known.rank};
}

template <int kDigit>
DEVICE u32 digit_of(u32 magnitude) {
  return magnitude >> kLowest<kDigit> & (kBins<kDigit> - 1);
}

/// Whether a magnitude begins with the digits before this one that are known.
template <int kDigit>
DEVICE bool begins_like(u32 magnitude, Known known) {
  if constexpr (kDigit == 0)
    return true;
  else
    return magnitude >> kLowest<kDigit - 1> == known.magnitude >> kLowest<kDigit - 1>;
}

/// A histogram of a block's own, of one digit at a time. (Shared arrays stand in no template: there
/// the emulation would not know them.)
DEVICE u32* block_bins() {
  __shared__ u32 bins[kMostBins];
  return bins;
}

template <int kDigit>
DEVICE void clear_bins(u32* bins) {
  for (u32 bin = threadIdx.x; bin < kBins<kDigit>; bin += kThreads) bins[bin] = 0;
  __syncthreads();
}

DEVICE Known* block_known() {
  __shared__ Known known;
  return &known;
}

/// The next digit, by the histogram. All threads of a block call it, with the same arguments, and
/// have the result.
template <int kDigit>
DEVICE Known with_digit(Known known, const u32* bins) {
  constexpr u32 kEach = kBins<kDigit> / kThreads;
  Known* const found = block_known();
  if (known.rank == 0) return known;
  // The first thread has the last bins.
  const u32 last = kBins<kDigit> - 1 - threadIdx.x * kEach;
  u32 counts[kEach], mine = 0;
  UNROLL for (u32 i = 0; i < kEach; ++i) mine += counts[i] = bins[last - i];
  u32 before = sum_of_block(mine).before;
  if (before < known.rank && known.rank - before <= mine) {
    UNROLL for (u32 i = 0; i < kEach; ++i) {
      if (before < known.rank && known.rank - before <= counts[i]) {
        const u32 digit = last - i;
        const bool finite = kDigit > 0 || digit < kInfinite;
        *found = {known.magnitude | digit << kLowest<kDigit>, finite ? known.rank - before : 0};
      }
      before += counts[i];
    }
  }
  __syncthreads();
  known = *found;
  __syncthreads();
  return known;
}

// Rows --------------------------------------------------------------------------------------------

/// Candidates for being selected: one in each lane, in order.
struct Row {
  bool there;
  u32 position;
  float x;
};

/// The lanes of a row that are greater than the cut's magnitude, and those that are equal to it.
struct Lanes {
  u32 greater, equal;

  DEVICE Lanes(const Row& row, Cut cut) {
    const u32 m = magnitude(row.x);
    greater = __ballot_sync(kAllLanes, row.there && m > cut.above);
    equal = cut.ties > 0 ? __ballot_sync(kAllLanes, row.there && m == cut.above) : 0;
  }

  DEVICE Selected among(u32 lanes) const {
    return {static_cast<u32>(__popc(greater & lanes)), static_cast<u32>(__popc(equal & lanes))};
  }
};

DEVICE Selected operator+(Selected a, Selected b) {
  return {a.greater + b.greater, a.equal + b.equal};
}

/// How many entries they are.
DEVICE u32 entries(Selected selected, Cut cut) {
  return selected.greater + (selected.equal < cut.ties ? selected.equal : cut.ties);
}

/// Makes entries of those of a row that are selected, from number `first` on, where `before` of the
/// same selection come before the row. The residual gets what is left out: if the input is there
/// (`whole`), 0 for the entries, otherwise the others.
DEVICE void keep_row(const Entries& out, float* residual, bool whole, Cut cut, const Row& row,
                     const Lanes& lanes, u32 first, Selected before) {
  if (!row.there) return;
  before = before + lanes.among(lanes_below());
  const u32 self = u32{1} << lane(), to = first + entries(before, cut);
  const bool kept = lanes.greater & self || (lanes.equal & self && before.equal < cut.ties);
  const bool sent = kept && to < out.room;
  if (sent) {
    out.positions[to] = row.position;
    out.values[to] = row.x;
  }
  if (!residual) return;
  const bool left = !sent && magnitude(row.x) <= kGreatestFinite;
  if (left != whole) residual[row.position] = left ? row.x : 0;
}

}  // namespace
}  // namespace ronde::cuda
