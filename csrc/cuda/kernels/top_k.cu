// The k largest of values + residual, exactly, of equal ones the first, or all from a threshold on,
// and what is left out (compress/top_k.h, compress/threshold.h). One pass over the vector:
//
//   sample, guess  a magnitude that is a little less than that of the k-th largest
//   take           the input, less the survivors, becomes the residual
//   histogram      radix select among the survivors, a digit each time
//   count, keep    of the survivors those that are selected become entries, in order; the others
//                  go back to the residual
//
// The guess is bad if there are fewer than k survivors, or more than there is space for. Then all
// of them go back (restore), and the kernels behind it look at the whole vector in their place. So
// the result never depends on the guess.
//
// No thread waits for another block: where a warp's entries begin is found by counting them first.
#include "cut.h"
#include "draw.h"
#include "top_k.h"

namespace ronde::cuda {
namespace {

DEVICE u32 least_of(const TopK& a) { return a.samples > 0 ? a.state->least : a.least; }

DEVICE bool guess_is_bad(const TopK& a) {
  const u32 survivors = a.state->survivors;
  return survivors > a.space || survivors < a.k;
}

/// After a bad guess: values + residual.
DEVICE const float* whole_input(const TopK& a) { return a.residual ? a.residual : a.values; }

// guess -------------------------------------------------------------------------------------------

/// A sample in the registers of a block.
class Sample {
 public:
  explicit DEVICE Sample(const TopK& a) : count_(a.samples) {
    UNROLL for (u32 i = 0; i < kEach; ++i) mine_[i] = number(i) < count_ ? a.sample[number(i)] : 0;
  }

  /// The next digit.
  template <int kDigit>
  DEVICE Known find(Known known) const {
    u32* const bins = block_bins();
    clear_bins<kDigit>(bins);
    UNROLL for (u32 i = 0; i < kEach; ++i) {
      if (number(i) < count_ && begins_like<kDigit>(mine_[i], known))
        atomicAdd(&bins[digit_of<kDigit>(mine_[i])], u32{1});
    }
    __syncthreads();
    return with_digit<kDigit>(known, bins);
  }

 private:
  static constexpr u32 kEach = kMostSamples / kThreads;
  static DEVICE u32 number(u32 i) { return i * kThreads + threadIdx.x; }

  u32 count_;
  u32 mine_[kEach];
};

// take --------------------------------------------------------------------------------------------

struct alignas(16) Packet {
  float items[4];
};

constexpr u32 kItems = 4, kPackets = kTile / kThreads / kItems;

/// Elements of a tile that a thread has. Those of a warp stand together, packet k of lane l being
/// number 32 k + l.
struct Part {
  float x[kPackets][kItems];
  u32 large;  // a bit for each of them
};

/// Where packet k of this thread begins: an element, which may be before the first.
DEVICE long long packet_begin(const TopK& a, u32 k) {
  const u64 packet = (u64{blockIdx.x} * kWarps + warp()) * (kPackets * kWarp) + k * kWarp + lane();
  return static_cast<long long>(packet * kItems) - a.shift;
}

DEVICE u32 large_in(const float (&x)[kItems], u32 least) {
  u32 large = 0;
  UNROLL for (u32 i = 0; i < kItems; ++i) large |= static_cast<u32>(magnitude(x[i]) >= least) << i;
  return large;
}

/// Of a tile that consists of whole packets.
template <bool kFeedback>
DEVICE Part take_packets(const TopK& a, u32 least) {
  const u64 first = static_cast<u64>(packet_begin(a, 0));
  const Packet* const values = reinterpret_cast<const Packet*>(a.values + first);
  Packet* const residual = reinterpret_cast<Packet*>(a.residual + first);
  Packet inputs[kPackets], residuals[kPackets];
  UNROLL for (u32 k = 0; k < kPackets; ++k) {
    inputs[k] = values[k * kWarp];
    if constexpr (kFeedback) residuals[k] = residual[k * kWarp];
  }
  Part part;
  part.large = 0;
  UNROLL for (u32 k = 0; k < kPackets; ++k) {
    UNROLL for (u32 i = 0; i < kItems; ++i) {
      part.x[k][i] = inputs[k].items[i];
      if constexpr (kFeedback) part.x[k][i] += residuals[k].items[i];
    }
    const u32 large = large_in(part.x[k], least);
    part.large |= large << k * kItems;
    if constexpr (kFeedback) {
      Packet left;
      UNROLL for (u32 i = 0; i < kItems; ++i) left.items[i] = large >> i & 1 ? 0 : part.x[k][i];
      residual[k * kWarp] = left;
    }
  }
  return part;
}

/// Of any tile.
DEVICE Part take_elements(const TopK& a, u32 least) {
  Part part;
  part.large = 0;
  UNROLL for (u32 k = 0; k < kPackets; ++k) {
    u32 there = 0;
    UNROLL for (u32 i = 0; i < kItems; ++i) {
      const long long at = packet_begin(a, k) + i;
      const bool inside = at >= 0 && static_cast<u64>(at) < a.count;
      there |= static_cast<u32>(inside) << i;
      part.x[k][i] = inside ? a.values[at] : 0;
      if (inside && a.residual) part.x[k][i] += a.residual[at];
    }
    const u32 large = large_in(part.x[k], least) & there;
    part.large |= large << k * kItems;
    UNROLL for (u32 i = 0; i < kItems; ++i) {
      if (a.residual && there >> i & 1)
        a.residual[packet_begin(a, k) + i] = large >> i & 1 ? 0 : part.x[k][i];
    }
  }
  return part;
}

/// Stores the survivors of a tile, as far as there is space; the others stay in the residual.
DEVICE void store_strip(const TopK& a, const Part& part) {
  __shared__ u32 of_warps[kWarps], strip_begin;
  // A warp has at most 128 in a packet's row: the sums of four rows fit one word.
  u32 mine = 0;
  UNROLL for (u32 k = 0; k < kPackets; ++k) mine |=
      static_cast<u32>(__popc(part.large >> k * kItems & 15)) << 8 * k;
  const u32 up_to_here = sum_up_to_lane(mine);
  const u32 rows = __shfl_sync(kAllLanes, up_to_here, kWarp - 1);
  if (lane() == 0)
    of_warps[warp()] = (rows & 255) + (rows >> 8 & 255) + (rows >> 16 & 255) + (rows >> 24);
  __syncthreads();
  u32 before = 0, total = 0;
  UNROLL for (u32 w = 0; w < kWarps; ++w) {
    if (w < warp()) before += of_warps[w];
    total += of_warps[w];
  }
  if (threadIdx.x == 0) {
    strip_begin = total > 0 ? atomicAdd(&a.state->survivors, total) : 0;
    a.strips[blockIdx.x] = {strip_begin, total};
  }
  __syncthreads();
  if (part.large == 0) return;
  before += strip_begin;
  UNROLL for (u32 k = 0; k < kPackets; ++k) {
    u32 to = before + ((up_to_here - mine) >> 8 * k & 255);
    before += rows >> 8 * k & 255;
    UNROLL for (u32 i = 0; i < kItems; ++i) {
      if (!(part.large >> (k * kItems + i) & 1)) continue;
      const u32 position = static_cast<u32>(packet_begin(a, k) + i);
      if (to < a.space)
        a.survivors[to] = {position, part.x[k][i]};
      else if (a.residual)
        a.residual[position] = part.x[k][i];
      ++to;
    }
  }
}

// histogram ---------------------------------------------------------------------------------------

/// What is known when all digits before this one are counted. The first block stores it.
template <int kDigit>
DEVICE Known known_before(const TopK& a) {
  if constexpr (kDigit == 0) {
    return {0, a.k};
  } else {
    const Known earlier = kDigit == 1 ? Known{0, a.k} : a.state->known[kDigit - 2];
    const Known known = with_digit<kDigit - 1>(earlier, a.state->bins[kDigit - 1]);
    if (thread() == 0) a.state->known[kDigit - 1] = known;
    return known;
  }
}

/// Counts the digits of magnitudes that begin with what is known.
template <int kDigit, class Load>
DEVICE void count_digits(Known known, u64 count, u32* bins, Load load) {
  constexpr u32 kAtOnce = 8;
  // (The hardware adds up the ones that a warp has for one bin, however many they are.)
  const auto add = [&](u32 found) {
    if (begins_like<kDigit>(found, known)) atomicAdd(&bins[digit_of<kDigit>(found)], u32{1});
  };
  u64 at = thread();
  for (; at + (kAtOnce - 1) * threads() < count; at += kAtOnce * threads()) {
    u32 found[kAtOnce];
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) found[i] = load(at + i * threads());
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) add(found[i]);
  }
  for (; at < count; at += threads()) add(load(at));
}

template <int kDigit>
DEVICE void histogram(const TopK& a) {
  const bool bad = guess_is_bad(a);
  const u64 count = bad ? a.count : a.state->survivors;
  const Known known = known_before<kDigit>(a);
  if (known.rank == 0 || u64{blockIdx.x} * kThreads >= count) return;
  u32* const bins = block_bins();
  clear_bins<kDigit>(bins);
  if (bad) {
    const float* const input = whole_input(a);
    count_digits<kDigit>(known, count, bins, [=](u64 at) { return magnitude(input[at]); });
  } else {
    const Entry* const survivors = a.survivors;
    count_digits<kDigit>(known, count, bins,
                         [=](u64 at) { return magnitude(survivors[at].value); });
  }
  __syncthreads();
  for (u32 bin = threadIdx.x; bin < kBins<kDigit>; bin += kThreads) {
    if (bins[bin] > 0) atomicAdd(&a.state->bins[kDigit][bin], bins[bin]);
  }
}

// count, keep -------------------------------------------------------------------------------------

/// Goes over the candidates of this warp in order: survivors of its tiles, or after a bad guess
/// all their elements. Calls f(row, whether it is of survivors).
template <class F>
DEVICE void for_each_row(const TopK& a, bool bad, F f) {
  const u64 warps = u64{gridDim.x} * kWarps, mine = u64{blockIdx.x} * kWarps + warp();
  const u32 end = static_cast<u32>((mine + 1) * a.tiles / warps);
  for (u32 tile = static_cast<u32>(mine * a.tiles / warps); tile < end; ++tile) {
    if (bad) {
      constexpr u32 kAtOnce = 8;
      const float* const input = whole_input(a);
      const long long begin = static_cast<long long>(u64{tile} * kTile + lane()) - a.shift;
      const auto inside = [&](long long at) { return at >= 0 && static_cast<u64>(at) < a.count; };
      ROLLED for (u32 first = 0; first < kTile; first += kAtOnce * kWarp) {
        float x[kAtOnce];
        UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
          const long long at = begin + first + i * kWarp;
          x[i] = inside(at) ? input[at] : 0;
        }
        UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
          const long long at = begin + first + i * kWarp;
          f(Row{inside(at), static_cast<u32>(at), x[i]});
        }
      }
    } else {
      const Strip strip = a.strips[tile];
      for (u32 first = 0; first < strip.count; first += kWarp) {
        const bool inside = first + lane() < strip.count;
        const Entry entry = inside ? a.survivors[strip.begin + first + lane()] : Entry{0, 0};
        f(Row{inside, entry.position, entry.value});
      }
    }
  }
}

DEVICE Cut cut_of(const TopK& a, Known known) {
  return a.k > 0 ? cut_at(known) : Cut{a.least - 1, 0};
}

/// What the warps before this one have found.
DEVICE Selected before_warp(const TopK& a) {
  Selected mine{0, 0};
  for (u32 block = threadIdx.x; block < blockIdx.x; block += kThreads)
    mine = mine + a.of_blocks[block];
  Selected before{sum_of_block(mine.greater).total, sum_of_block(mine.equal).total};
  for (u32 w = 0; w < warp(); ++w) before = before + a.of_warps[blockIdx.x * kWarps + w];
  return before;
}

}  // namespace

// The kernels -------------------------------------------------------------------------------------

/// One value of each part of the vector.
KERNEL(top_k_sample, TopK, a) {
  for (u64 number = thread(); number < a.samples; number += threads()) {
    const u64 at = RandomPositions{a.count, a.samples, 0}.drawn(number);
    a.sample[number] = magnitude(a.residual ? a.values[at] + a.residual[at] : a.values[at]);
  }
}

/// One block. Two digits are as exact as a sample is.
KERNEL(top_k_guess, TopK, a) {
  Sample sample(a);
  const Known first = sample.find<0>({0, a.rank}), second = sample.find<1>(first);
  if (threadIdx.x == 0) a.state->least = cut_at(second).above;
}

/// A block for each tile.
KERNEL(top_k_take, TopK, a) {
  const u32 least = least_of(a);
  const u64 end = (u64{blockIdx.x} + 1) * kTile;
  const bool whole = a.alike && (blockIdx.x > 0 || a.shift == 0) && end - a.shift <= a.count;
  const Part part = !whole       ? take_elements(a, least)
                    : a.residual ? take_packets<true>(a, least)
                                 : take_packets<false>(a, least);
  store_strip(a, part);
}

KERNEL(top_k_restore, TopK, a) {
  if (!a.residual || !guess_is_bad(a)) return;
  const u32 found = a.state->survivors, stored = found < a.space ? found : a.space;
  for (u64 i = thread(); i < stored; i += threads())
    a.residual[a.survivors[i].position] = a.survivors[i].value;
}

KERNEL(top_k_histogram_0, TopK, a) { histogram<0>(a); }
KERNEL(top_k_histogram_1, TopK, a) { histogram<1>(a); }
KERNEL(top_k_histogram_2, TopK, a) { histogram<2>(a); }

KERNEL(top_k_count, TopK, a) {
  __shared__ Selected of_warps[kWarps];
  const Cut cut = cut_of(a, a.k > 0 ? known_before<kDigits>(a) : Known{0, 0});
  Selected found{0, 0};
  for_each_row(a, guess_is_bad(a),
               [&](const Row& row) { found = found + Lanes(row, cut).among(kAllLanes); });
  if (lane() == 0) of_warps[warp()] = a.of_warps[blockIdx.x * kWarps + warp()] = found;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (u32 w = 1; w < kWarps; ++w) found = found + of_warps[w];
  a.of_blocks[blockIdx.x] = found;
}

/// The same grid.
KERNEL(top_k_keep, TopK, a) {
  const Cut cut = cut_of(a, a.state->known[kDigits - 1]);
  const bool bad = guess_is_bad(a);
  Selected before = before_warp(a);
  for_each_row(a, bad, [&](const Row& row) {
    const Lanes lanes(row, cut);
    // Of a whole vector that is so almost everywhere.
    if (bad && (lanes.greater | lanes.equal) == 0) return;
    keep_row(a.out, a.residual, bad, cut, row, lanes, 0, before);
    before = before + lanes.among(kAllLanes);
  });
  if (thread() == threads() - 1) *a.out.count = entries(before, cut);
}

}  // namespace ronde::cuda
