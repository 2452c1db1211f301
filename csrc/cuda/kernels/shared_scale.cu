// Floats to integers of a step that is given, and back (compress/shared_scale.h has what is
// computed, kernels/shared_scale.inc the order of roundings).
//
// A thread rounds the elements of one lane in 8 rows of 16: they share their random numbers, and
// half a warp has a whole group of 128, in runs of 64 bytes.
#include "device.h"
#include "philox.h"
#include "shared_scale.h"

namespace ronde::cuda {
namespace {

constexpr u32 kRow = 16, kRows = 8, kGroup = kRow * kRows, kWarps = kThreads / kWarp;
constexpr float kLeastStep = 0x1p-126f, kLargest = 0x1.fffffcp127f;
constexpr u32 kNan = 0x7fc00000;

DEVICE u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffff; }

// Scales ------------------------------------------------------------------------------------------

/// NaN if `max` is not finite; zero where it would be no normal number.
DEVICE float step_of(float max, float levels) {
  if (magnitude(max) >= 0x7f800000) return __uint_as_float(kNan);
  const float step = (max < kLargest ? max : kLargest) / levels;
  return step < kLeastStep ? 0 : step;
}

/// Whether step_of gives it.
DEVICE bool known(float step, float levels) {
  const u32 bits = __float_as_uint(step);
  return bits == 0 || bits == kNan || (step >= kLeastStep && step <= kLargest / levels);
}

DEVICE u8* scale_of(const ScaledBlocks& blocks, u32 number) {
  return blocks.scales + number * blocks.between_scales;
}

DEVICE float step_of(const ScaledBlocks& blocks, u32 number) {
  const float scale = __ldg(reinterpret_cast<const float*>(scale_of(blocks, number)));
  return blocks.steps ? scale : step_of(scale, blocks.levels);
}

/// The integer of the element, which is in the block of that number.
template <class T>
DEVICE T* integer_at(const ScaledBlocks& blocks, u32 number, u64 element) {
  const u64 inside = element - u64{number} * blocks.block;
  return reinterpret_cast<T*>(blocks.integers + number * blocks.between_integers) + inside;
}

/// The block of an element, of which a device has no 2^39.
DEVICE u32 block_of(const ScaledBlocks& blocks, u64 element) {
  return static_cast<u32>(element / kGroup) / (blocks.block / kGroup);
}

/// How many of `size` elements from `begin` on there are.
DEVICE u32 here(u64 begin, u64 end, u32 size) {
  if (begin >= end) return 0;
  return end - begin < size ? static_cast<u32>(end - begin) : size;
}

// Maxima ------------------------------------------------------------------------------------------

DEVICE u32 greatest_of_warp(u32 x) {
  UNROLL for (u32 by = kWarp / 2; by > 0; by /= 2) {
    const u32 other = __shfl_xor_sync(kAllLanes, x, by);
    x = other > x ? other : x;
  }
  return x;
}

/// The greatest magnitude of this thread's elements of a part.
DEVICE u32 greatest(const Maxima& a, u64 begin, u32 count) {
  constexpr int kEach = kWarpPart / kWarp;
  const u32 lane = threadIdx.x % kWarp;
  float x[kEach], left[kEach];
  UNROLL for (int i = 0; i < kEach; ++i) {
    const u32 at = i * kWarp + lane;
    x[i] = at < count ? a.values[begin + at] : 0;
    left[i] = a.residual && at < count ? a.residual[begin + at] : 0;
  }
  u32 most = 0;
  UNROLL for (int i = 0; i < kEach; ++i) {
    // (Without a residual NaN stays as it is.)
    const u32 m = magnitude(a.residual ? x[i] + left[i] : x[i]);
    most = m > most ? m : most;
  }
  return most;
}

/// Warps work in teams, one for each block.
DEVICE void maxima(const Maxima& a) {
  __shared__ u32 found[kWarps];
  const ScaledBlocks& blocks = a.blocks;
  const u32 warp = threadIdx.x / kWarp, member = warp % a.team, teams = kWarps / a.team;
  const u64 count = (blocks.count + blocks.block - 1) / blocks.block;
  for (u64 first = u64{blockIdx.x} * teams; first < count; first += u64{gridDim.x} * teams) {
    const u64 number = first + warp / a.team;
    const u64 begin = number * blocks.block + member * kWarpPart;
    const u64 end = (number + 1) * blocks.block;
    const u32 most = greatest_of_warp(
        greatest(a, begin, here(begin, end < blocks.count ? end : blocks.count, kWarpPart)));
    if (threadIdx.x % kWarp == 0) found[warp] = most;
    __syncthreads();
    if (threadIdx.x % kWarp == 0 && member == 0 && number < count) {
      u32 all = 0;
      for (u32 i = warp; i < warp + a.team; ++i) all = found[i] > all ? found[i] : all;
      const float max = __uint_as_float(all);
      *reinterpret_cast<float*>(scale_of(blocks, static_cast<u32>(number))) =
          blocks.steps ? step_of(max, blocks.levels) : max;
    }
    __syncthreads();
  }
}

// Quantise ----------------------------------------------------------------------------------------

/// The bits of this lane's integers, a word for as many rows as fit one, become those of one of
/// these rows, of as many lanes: of the row of this lane's number among them.
template <class T>
DEVICE u32 exchange(u32 rows) {
  const u32 lane = threadIdx.x;
  if constexpr (sizeof(T) == 1) {
    const u32 other = __shfl_xor_sync(kAllLanes, rows, 2);
    const u32 pairs = lane & 2 ? other >> 16 | (rows & 0xffff0000) : (rows & 0xffff) | other << 16;
    const u32 next = __shfl_xor_sync(kAllLanes, pairs, 1);
    return lane & 1 ? (next >> 8 & 0x00ff00ff) | (pairs & 0xff00ff00)
                    : (pairs & 0x00ff00ff) | (next & 0x00ff00ff) << 8;
  } else {
    const u32 other = __shfl_xor_sync(kAllLanes, rows, 1);
    return lane & 1 ? other >> 16 | (rows & 0xffff0000) : (rows & 0xffff) | other << 16;
  }
}

/// `out`: where the integers of a group begin, of which `count` are wanted.
template <class T>
DEVICE void store(const int (&steps)[kRows], T* out, u32 count, bool packed) {
  constexpr u32 kInWord = 4 / sizeof(T), kBits = 8 * sizeof(T), kMask = (1u << kBits) - 1;
  const u32 lane = threadIdx.x % kRow, mine = lane % kInWord;
  u32 words[kRows / kInWord]{};
  UNROLL for (u32 row = 0; row < kRows; ++row) words[row / kInWord] |=
      (static_cast<u32>(steps[row]) & kMask) << row % kInWord * kBits;
  UNROLL for (u32 w = 0; w < kRows / kInWord; ++w) {
    const u32 word = exchange<T>(words[w]);
    if (packed && count == kGroup)
      *reinterpret_cast<u32*>(out + (w * kInWord + mine) * kRow + lane - mine) = word;
  }
  if (packed && count == kGroup) return;
  UNROLL for (u32 row = 0; row < kRows; ++row) {
    const u32 at = row * kRow + lane;
    if (at < count) out[at] = static_cast<T>(steps[row]);
  }
}

/// The elements from `begin` on, `count` of a group: half a warp has them.
template <class T, bool kStochastic>
DEVICE void quantise_group(const Quantise& a, u64 begin, u32 count) {
  constexpr float kRound = 0x1.8p23f;  // rounds what it is added to, ties to even
  const u32 lane = threadIdx.x % kRow;
  float x[kRows], left[kRows];
  UNROLL for (u32 row = 0; row < kRows; ++row) {
    const u32 at = row * kRow + lane;
    x[row] = at < count ? a.values[begin + at] : 0;
    left[row] = a.residual && at < count ? a.residual[begin + at] : 0;
  }
  const u32 number = count > 0 ? block_of(a.blocks, begin) : 0;
  const float step = step_of(a.blocks, number), most = a.blocks.levels;
  const float inverse = step == 0 ? 0 : 1 / step;
  const bool finite = step == step;
  Philox random;
  if constexpr (kStochastic) random = Philox(a.key, a.first / kGroup + begin / kGroup, lane);
  int steps[kRows];
  UNROLL for (u32 row = 0; row < kRows; ++row) {
    if (a.residual) x[row] += left[row];
    float q = x[row] * inverse;
    q = q < most ? q : most;
    q = q > -most ? q : -most;
    if constexpr (kStochastic) q += random.centred(row);
    q += kRound;
    left[row] = finite ? x[row] - (q - kRound) * step : 0;
    steps[row] = finite ? __float_as_int(q) - __float_as_int(kRound) : 0;
  }
  if (a.residual) {
    UNROLL for (u32 row = 0; row < kRows; ++row) {
      const u32 at = row * kRow + lane;
      if (at < count) a.residual[begin + at] = left[row];
    }
  }
  store(steps, count > 0 ? integer_at<T>(a.blocks, number, begin) : nullptr, count,
        a.blocks.packed);
}

template <class T, bool kStochastic>
DEVICE void quantise(const Quantise& a) {
  // All threads of a warp take part, also where the second half has no group.
  for (u64 warp = thread() / kWarp; warp * 2 * kGroup < a.blocks.count; warp += threads() / kWarp) {
    const u64 begin = (warp * 2 + threadIdx.x / kRow % 2) * kGroup;
    quantise_group<T, kStochastic>(a, begin, here(begin, a.blocks.count, kGroup));
  }
}

// Dequantise --------------------------------------------------------------------------------------

/// kItems elements, which lie together.
template <class T, u32 kItems>
struct alignas(kItems * sizeof(T)) Packet {
  T items[kItems];
};

/// Packets of a thread whose loads are under way before the first of them is needed.
constexpr u32 kAtOnce = 4;

template <class T>
DEVICE bool wrong(float step, float levels, T integer) {
  // From the lowest on, those outside count more than there are: below it they wrap around.
  const auto all = static_cast<int>(levels);
  return !known(step, levels) || static_cast<u8>(integer + all) > 2 * all;
}

/// Packet `at` and the others of this thread, as far as they are among `count`.
template <class T, bool kAdd, u32 kItems>
DEVICE void dequantise_packets(const Dequantise& a, u64 first, u64 at, u64 count) {
  using Integers = Packet<T, kItems>;
  using Floats = Packet<float, kItems>;
  auto* const out = reinterpret_cast<Floats*>(a.out + first);
  Integers integers[kAtOnce];
  Floats floats[kAtOnce];
  float steps[kAtOnce];
  UNROLL for (u32 p = 0; p < kAtOnce; ++p) {
    const u64 packet = at + p * threads();
    if (packet >= count) break;
    const u64 element = first + packet * kItems;
    const u32 number = block_of(a.blocks, element);
    integers[p] = *reinterpret_cast<const Integers*>(integer_at<T>(a.blocks, number, element));
    steps[p] = step_of(a.blocks, number);
    if constexpr (kAdd) floats[p] = out[packet];
  }
  UNROLL for (u32 p = 0; p < kAtOnce; ++p) {
    const u64 packet = at + p * threads();
    if (packet >= count) break;
    const double scale = steps[p] * a.factor;
    UNROLL for (u32 i = 0; i < kItems; ++i) {
      const T integer = integers[p].items[i];
      const auto x = static_cast<float>(integer * scale);
      floats[p].items[i] = kAdd ? floats[p].items[i] + x : x;
      if (a.wrong && wrong(steps[p], a.blocks.levels, integer)) atomicOr(a.wrong, 1u);
    }
    out[packet] = floats[p];
  }
}

template <class T, bool kAdd, u32 kItems>
DEVICE void dequantise_from(const Dequantise& a, u64 first, u64 count) {
  for (u64 at = thread(); at < count; at += kAtOnce * threads())
    dequantise_packets<T, kAdd, kItems>(a, first, at, count);
}

template <class T, bool kAdd>
DEVICE void dequantise(const Dequantise& a) {
  constexpr u32 kItems = 4;
  const u64 count = a.blocks.count, packets = a.blocks.packed ? count / kItems : 0;
  dequantise_from<T, kAdd, kItems>(a, 0, packets);
  dequantise_from<T, kAdd, 1>(a, packets * kItems, count - packets * kItems);
}

}  // namespace

KERNEL(shared_scale_maxima, Maxima, a) { maxima(a); }

KERNEL(shared_scale_quantise_int8_nearest, Quantise, a) { quantise<signed char, false>(a); }
KERNEL(shared_scale_quantise_int8_stochastic, Quantise, a) { quantise<signed char, true>(a); }
KERNEL(shared_scale_quantise_int16_nearest, Quantise, a) { quantise<short, false>(a); }
KERNEL(shared_scale_quantise_int16_stochastic, Quantise, a) { quantise<short, true>(a); }

KERNEL(shared_scale_dequantise_int8_copy, Dequantise, a) { dequantise<signed char, false>(a); }
KERNEL(shared_scale_dequantise_int8_add, Dequantise, a) { dequantise<signed char, true>(a); }
KERNEL(shared_scale_dequantise_int16_copy, Dequantise, a) { dequantise<short, false>(a); }
KERNEL(shared_scale_dequantise_int16_add, Dequantise, a) { dequantise<short, true>(a); }

}  // namespace ronde::cuda
