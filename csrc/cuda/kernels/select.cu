// The k largest of each block (compress/top_k.h) and random entries (compress/random_k.h).
//
// Block top-k: find stores the input in the residual and finds a cut for each block, keep makes the
// entries, in order. A block of the vector is the work of a warp if it is small, otherwise of all
// warps of a block of threads. Each of them has some blocks of the vector that lie together, and
// where its entries begin is known by what those before it have found.
#include "cut.h"
#include "draw.h"
#include "select.h"

namespace ronde::cuda {
namespace {

// Block top-k -------------------------------------------------------------------------------------

constexpr int kBelowAll = -1;

/// A block of the vector.
struct Block {
  u64 begin;
  u32 length, k;
};

DEVICE Block block_at(const BlockTopK& a, u32 number) {
  const u64 begin = u64{number} * a.block, left = a.count - begin;
  const bool last = number + 1 == a.blocks;
  return {begin, last ? static_cast<u32>(left) : a.block, last ? a.last_k : a.k};
}

/// Calls f(number) for the blocks that are this group's, of so many groups.
template <class F>
DEVICE void for_each_block(const BlockTopK& a, u32 group, u32 groups, F f) {
  const u32 end = static_cast<u32>((u64{group} + 1) * a.blocks / groups);
  ROLLED for (u32 number = static_cast<u32>(u64{group} * a.blocks / groups); number < end; ++number)
      f(number);
}

DEVICE u32 this_warp() { return blockIdx.x * kWarps + warp(); }
DEVICE u32 all_warps() { return gridDim.x * kWarps; }

/// What find leaves behind, where keep finds it.
DEVICE const float* input_of(const BlockTopK& a) { return a.residual ? a.residual : a.values; }

/// A block in the registers of a warp: element 32 i + l is in lane l.
class SmallBlock {
 public:
  DEVICE SmallBlock(const BlockTopK& a, const Block& block) {
    constexpr u32 kAtOnce = 8;
    const float* const values = a.values + block.begin + lane();
    float* const residual = a.residual + block.begin + lane();
    const u32 rows = (block.length + kWarp - 1 - lane()) / kWarp;  // that this lane has
    UNROLL for (u32 first = 0; first < kEach; first += kAtOnce) {
      float x[kAtOnce];
      UNROLL for (u32 i = 0; i < kAtOnce; ++i) x[i] =
          first + i < rows ? values[(first + i) * kWarp] : 0;
      if (a.residual) {
        UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
          if (first + i < rows) x[i] += residual[(first + i) * kWarp];
        }
        UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
          if (first + i < rows) residual[(first + i) * kWarp] = x[i];
        }
      }
      UNROLL for (u32 i = 0; i < kAtOnce; ++i) magnitudes_[first + i] = magnitude(x[i]);
    }
  }

  /// The cut is between two magnitudes: above `low` are k or more, above `high` are fewer. What is
  /// beyond the end counts as 0, which is above nothing that is asked for.
  DEVICE Cut find(u32 k) const {
    if (above(kGreatestFinite) >= k) return {kGreatestFinite, 0};
    int low = kBelowAll, high = kGreatestFinite;
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      const u32 found = above(static_cast<u32>(middle));
      if (found == k) return {static_cast<u32>(middle), 0};
      (found > k ? low : high) = middle;
    }
    return {static_cast<u32>(high), k - above(static_cast<u32>(high))};
  }

  DEVICE u32 above(u32 least) const {
    u32 mine = 0;
    UNROLL for (u32 i = 0; i < kEach; ++i) mine += magnitudes_[i] > least;
    return sum_of_warp(mine);
  }

 private:
  static constexpr u32 kEach = kSmallBlock / kWarp;
  u32 magnitudes_[kEach];
};

/// Four elements of a block, for each thread of a block, from the first one on.
struct Four {
  static constexpr u32 kStep = 4 * kThreads;
  float x[4];
  bool inside[4];

  DEVICE Four(const float* from, const Block& block, u32 first) {
    UNROLL for (u32 i = 0; i < 4; ++i) {
      const u32 at = first + i * kThreads + threadIdx.x;
      inside[i] = at < block.length;
      x[i] = inside[i] ? from[block.begin + at] : 0;
    }
  }

  DEVICE void add_and_store(float* residual, const Block& block, u32 first) {
    const Four others(residual, block, first);
    UNROLL for (u32 i = 0; i < 4; ++i) {
      x[i] += others.x[i];
      if (inside[i]) residual[block.begin + first + i * kThreads + threadIdx.x] = x[i];
    }
  }
};

/// The histogram of a block's digits, by a block of threads. The first time, the residual becomes
/// the input.
template <int kDigit>
DEVICE Known find_digit(const BlockTopK& a, const Block& block, Known known, u32* bins) {
  clear_bins<kDigit>(bins);
  ROLLED for (u32 first = 0; first < block.length; first += Four::kStep) {
    Four four(kDigit == 0 ? a.values : input_of(a), block, first);
    if (kDigit == 0 && a.residual) four.add_and_store(a.residual, block, first);
    UNROLL for (u32 i = 0; i < 4; ++i) {
      const u32 found = magnitude(four.x[i]);
      if (four.inside[i] && begins_like<kDigit>(found, known))
        atomicAdd(&bins[digit_of<kDigit>(found)], u32{1});
    }
  }
  __syncthreads();
  return with_digit<kDigit>(known, bins);
}

struct Found {
  Cut cut;
  u32 entries;
};

/// By a block of threads.
DEVICE Found find_in_large(const BlockTopK& a, const Block& block) {
  u32* const bins = block_bins();
  Known known = find_digit<0>(a, block, {0, block.k}, bins);
  if (known.rank == 0) {
    const u32 mine = threadIdx.x < kMostBins - kInfinite ? bins[kInfinite + threadIdx.x] : 0;
    return {cut_at(known), sum_of_block(mine).total};
  }
  known = find_digit<1>(a, block, known, bins);
  known = find_digit<2>(a, block, known, bins);
  return {cut_at(known), block.k};
}

/// Calls f(row) for the rows of a part of a block, for this warp.
template <class F>
DEVICE void for_each_row(const BlockTopK& a, const Block& block, u32 begin, u32 end, F f) {
  constexpr u32 kAtOnce = 4;
  const float* const input = input_of(a) + block.begin;
  ROLLED for (u32 first = begin; first < end; first += kAtOnce * kWarp) {
    float x[kAtOnce];
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
      const u32 at = first + i * kWarp + lane();
      x[i] = at < end ? input[at] : 0;
    }
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
      const u32 at = first + i * kWarp + lane();
      f(Row{at < end, static_cast<u32>(block.begin + at), x[i]});
    }
  }
}

/// Keeps what is selected of a part of a block, from entry `first` on, and returns how much was
/// selected. `before`: what of the block comes before the part.
DEVICE Selected keep_part(const BlockTopK& a, const Block& block, u32 begin, u32 end, Cut cut,
                          u32 first, Selected before) {
  for_each_row(a, block, begin, end, [&](const Row& row) {
    const Lanes lanes(row, cut);
    if ((lanes.greater | lanes.equal) == 0) return;
    keep_row(a.out, a.residual, true, cut, row, lanes, first, before);
    before = before + lanes.among(kAllLanes);
  });
  return before;
}

/// Entries of the blocks of threads before this one.
DEVICE u32 before_block(const BlockTopK& a) {
  u32 mine = 0;
  for (u32 block = threadIdx.x; block < blockIdx.x; block += kThreads) mine += a.of_blocks[block];
  return sum_of_block(mine).total;
}

}  // namespace

KERNEL(block_top_k_find_small, BlockTopK, a) {
  u32 found = 0;
  for_each_block(a, this_warp(), all_warps(), [&](u32 number) {
    const Block block = block_at(a, number);
    const SmallBlock small(a, block);
    const Cut cut = small.find(block.k);
    if (lane() == 0) a.cuts[number] = cut;
    found += small.above(cut.above) + cut.ties;
  });
  if (lane() == 0) a.of_warps[this_warp()] = found;
  const u32 total = sum_of_block(lane() == 0 ? found : 0).total;
  if (threadIdx.x == 0) a.of_blocks[blockIdx.x] = total;
}

/// The same grid.
KERNEL(block_top_k_keep_small, BlockTopK, a) {
  u32 first = before_block(a);
  for (u32 w = 0; w < warp(); ++w) first += a.of_warps[blockIdx.x * kWarps + w];
  for_each_block(a, this_warp(), all_warps(), [&](u32 number) {
    const Block block = block_at(a, number);
    const Cut cut = a.cuts[number];
    first += entries(keep_part(a, block, 0, block.length, cut, first, {0, 0}), cut);
  });
  if (thread() == threads() - 1) *a.out.count = first;
}

KERNEL(block_top_k_find_large, BlockTopK, a) {
  u32 total = 0;
  for_each_block(a, blockIdx.x, gridDim.x, [&](u32 number) {
    const Found found = find_in_large(a, block_at(a, number));
    if (threadIdx.x == 0) a.cuts[number] = found.cut;
    total += found.entries;
  });
  if (threadIdx.x == 0) a.of_blocks[blockIdx.x] = total;
}

/// The same grid.
KERNEL(block_top_k_keep_large, BlockTopK, a) {
  __shared__ Selected of_warps[kWarps];
  u32 first = before_block(a);
  for_each_block(a, blockIdx.x, gridDim.x, [&](u32 number) {
    const Block block = block_at(a, number);
    const Cut cut = a.cuts[number];
    const u32 rows = (block.length - 1) / kWarp + 1;
    const u32 begin = warp() * rows / kWarps * kWarp, rows_end = (warp() + 1) * rows / kWarps;
    const u32 end = rows_end < rows ? rows_end * kWarp : block.length;
    Selected mine{0, 0};
    for_each_row(a, block, begin, end,
                 [&](const Row& row) { mine = mine + Lanes(row, cut).among(kAllLanes); });
    if (lane() == 0) of_warps[warp()] = mine;
    __syncthreads();
    Selected before{0, 0}, all{0, 0};
    UNROLL for (u32 w = 0; w < kWarps; ++w) {
      if (w < warp()) before = before + of_warps[w];
      all = all + of_warps[w];
    }
    keep_part(a, block, begin, end, cut, first, before);
    first += entries(all, cut);
    __syncthreads();
  });
  if (thread() == threads() - 1) *a.out.count = first;
}

// Random-k ----------------------------------------------------------------------------------------

namespace {

constexpr u32 kKeyWords = 2;  // before the numbers
constexpr u32 kNaN = 0x7fc00000;

DEVICE bool finite(float x) { return magnitude(x) <= kGreatestFinite; }

}  // namespace

/// The residual becomes the input, and the number of a part NaN where that is not finite.
KERNEL(random_k_encode, RandomKEncode, a) {
  constexpr u32 kAtOnce = 4;
  const auto step = [&](u64 first, u32 many) {
    float x[kAtOnce];
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
      if (i < many) x[i] = a.values[first + i * threads()];
    }
    if (a.residual) {
      UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
        if (i < many) x[i] += a.residual[first + i * threads()];
      }
      UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
        if (i < many) a.residual[first + i * threads()] = finite(x[i]) ? x[i] : 0;
      }
    }
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
      if (i >= many || finite(x[i])) continue;
      const u64 part = RandomPositions{a.count, a.parts, a.key}.part_of(first + i * threads());
      atomicOr(&a.payload[kKeyWords + part], kNaN);
    }
  };
  u64 at = thread();
  for (; at + (kAtOnce - 1) * threads() < a.count; at += kAtOnce * threads()) step(at, kAtOnce);
  for (; at < a.count; at += threads()) step(at, 1);
}

/// A thread for each part.
KERNEL(random_k_draw, RandomKEncode, a) {
  const RandomPositions positions{a.count, a.parts, a.key};
  for (u64 part = thread(); part < a.parts; part += threads()) {
    const u64 at = positions.drawn(part);
    u32* const number = &a.payload[kKeyWords + part];
    if (*number == 0) *number = __float_as_uint(a.residual ? a.residual[at] : a.values[at]);
    if (a.residual) a.residual[at] = 0;
  }
  if (thread() == 0) {
    a.payload[0] = static_cast<u32>(a.key);
    a.payload[1] = static_cast<u32>(a.key >> 32);
  }
}

/// A thread for each part. What is not finite is added to the whole of it.
KERNEL(random_k_decode, RandomKDecode, a) {
  const RandomPositions positions{a.count, a.parts, u64{a.payload[1]} << 32 | a.payload[0]};
  for (u64 part = thread(); part < a.parts; part += threads()) {
    const float number = __uint_as_float(a.payload[kKeyWords + part]);
    if (finite(number)) {
      a.out[positions.drawn(part)] += number;
    } else {
      const u64 end = positions.begin(part + 1);
      for (u64 at = positions.begin(part); at < end; ++at) a.out[at] += number;
    }
  }
}

}  // namespace ronde::cuda
