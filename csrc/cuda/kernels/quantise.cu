// Blocks of floats as a scale and packed codes: kernels/codec.h has the nouns, kernels/codec.inc
// what is computed.
//
// A thread has one of the 16 lanes of up to 32 rows, so half a warp has up to 512 values that lie
// together, and reads and writes runs of 64 bytes. As groups are whole words, the codes of a lane
// are one string of bits through all rows of a block: of a half warp whole words of it. A block is
// for as many half warps as it needs, its team: one or two, or several warps.
//
// Values stay in registers from their first load to the last store.
#include "codes.h"
#include "device.h"
#include "philox.h"
#include "quantise.h"

namespace ronde::cuda {
namespace {

constexpr u32 kRow = 16, kHalves = kThreads / kRow, kWarps = kThreads / kWarp;
constexpr float kNothing = -0.0f;  // whatever is added to it stays what it is

/// The same, but the compiler does not know: what is computed with it stays in its loop, where it
/// needs no registers.
DEVICE float hidden(float x) {
#if defined(__CUDACC__)
  asm volatile("" : "+f"(x));
#endif
  return x;
}

// Shares ------------------------------------------------------------------------------------------

/// Rows of which a thread has one value each, at most.
template <class C>
constexpr int kMost = kMostRows;
template <>
constexpr int kMost<E4M3> = kMostRowsE4M3;

/// Words of a thread's codes, at most.
template <class C>
constexpr int kWords = kMost<C> * C::kBits / 32;

/// What a thread has of a block.
template <class C>
struct Share {
  u32 lane, first;  // row
  u32 here;         // values of the block; 0 if there is none
  int rows;         // of this half warp, as in the payload
  int values;       // of this thread: where the vector ends there are fewer than rows
  u64 value, word;  // where the first of each stands, in the vector and in a payload
  u64 scale;        // where the scale does, in words

  DEVICE Share(const BlockLayout& layout, u64 count, u64 block) : lane(threadIdx.x % kRow) {
    const u64 begin = block * layout.size;
    here = begin >= count                ? 0
           : count - begin < layout.size ? static_cast<u32>(count - begin)
                                         : layout.size;
    first = (threadIdx.x / kRow & ((1u << layout.doublings) - 1)) * layout.rows;
    constexpr u32 kGroupValues = C::kGroup * kRow;
    const u32 padded = (here + kGroupValues - 1) / kGroupValues * C::kGroup;
    rows = clamped(static_cast<int>(padded - first), static_cast<int>(layout.rows));
    values = clamped(
        static_cast<int>(here + kRow - 1 - lane) / static_cast<int>(kRow) - static_cast<int>(first),
        rows);
    value = begin + first * kRow + lane;
    scale = block * (1 + layout.size * C::kBits / 32);
    word = scale + 1 + first * C::kBits / 32 * kRow + lane;
  }

  /// Whether rows end before this one, which may be the first of a group.
  DEVICE bool ends(int row) const { return row % C::kGroup == 0 && row >= rows; }

 private:
  static DEVICE int clamped(int x, int most) { return x < 0 ? 0 : x < most ? x : most; }
};

/// The half warps that have a block. All threads call it alike.
class Team {
 public:
  explicit DEVICE Team(u32 doublings)
      : halves_(1u << doublings), own_(threadIdx.x / kRow & (halves_ - 1)) {}

  DEVICE u32 greatest(u32 x) {
    ROLLED for (u32 by = halves_ > 1 ? 16 : 8; by > 0; by /= 2) {
      const u32 other = __shfl_xor_sync(kAllLanes, x, by);
      x = other > x ? other : x;
    }
    if (halves_ > 2) {
      // Two that take turns: who is late reads the one, while others are writing the other.
      __shared__ u32 of_warps[2][kWarps];
      turn_ ^= 1;
      const u32 warp = threadIdx.x / kWarp, warps = halves_ / 2;
      if (threadIdx.x % kWarp == 0) of_warps[turn_][warp] = x;
      __syncthreads();
      ROLLED for (u32 i = 0; i < warps; ++i) {
        const u32 other = of_warps[turn_][warp / warps * warps + i];
        x = other > x ? other : x;
      }
    }
    return x;
  }

  /// The sum over a block, each lane's in the order of rows: add(s) adds this thread's to s.
  template <class Add>
  DEVICE float sum(Add add) const {
    float sum = 0;
    ROLLED for (u32 half = 0; half < halves_; ++half) {
      if (half == own_) sum = add(sum);
      if (halves_ > 2 && half % 2 == 1) {
        float& passed = passed_by(half);
        if (half == own_) passed = sum;
        __syncthreads();
        sum = passed;
      } else if (halves_ > 1) {
        const float other = __shfl_xor_sync(kAllLanes, sum, 16);
        if (half != own_) sum = other;
      }
    }
    ROLLED for (u32 by = kRow / 2; by > 0; by /= 2) sum += __shfl_xor_sync(kAllLanes, sum, by);
    return sum;
  }

 private:
  /// A lane's sum that the last half of a warp passes on. Warps of a team take turns with two: who
  /// is late reads the one, while the next is writing the other.
  DEVICE float& passed_by(u32 half) const {
    __shared__ float lanes[2][kHalves / 4][kRow];
    return lanes[half / 2 % 2][threadIdx.x / kRow / halves_][threadIdx.x % kRow];
  }

  u32 halves_, own_;
  u32 turn_ = 0;
};

/// Calls f(block) for the blocks of this thread, as often in all threads of a block of threads.
template <class F>
DEVICE void for_blocks(const BlockLayout& layout, u64 count, F f) {
  const u64 teams = kHalves >> layout.doublings, blocks = (count + layout.size - 1) / layout.size;
  const u32 team = threadIdx.x / kRow >> layout.doublings;
  ROLLED for (u64 at = blockIdx.x * teams; at < blocks; at += gridDim.x * teams) f(at + team);
}

DEVICE void report(u32* flag) {
  if (flag) atomicOr(flag, 1u);
}

// Decoding ----------------------------------------------------------------------------------------

/// What a thread has of a payload.
template <class C>
struct Codes {
  float scale;
  u32 words[kWords<C>];

  DEVICE void load(const u32* payload, const Share<C>& share) {
    const int count = share.rows * C::kBits / 32;
    scale = count > 0 ? __uint_as_float(__ldg(payload + share.scale)) : 0;
    UNROLL for (int k = 0; k < kWords<C>; ++k) words[k] =
        k < count ? __ldg(payload + share.word + k * kRow) : 0;
  }

  /// Reports a scale that no encoder writes, and calls take(row, value) for all rows.
  template <class Take>
  DEVICE void decode(const Share<C>& share, u32* bad_scale, Take take) const {
    if (__float_as_uint(scale) != kNan && !C::is_scale(scale)) report(bad_scale);
    const C code(scale);
    UNROLL for (int row = 0; row < kMost<C>; ++row) {
      if (share.ends(row)) break;
      const int shift = row * C::kBits % 32, k = row * C::kBits / 32;
      const bool split = shift + C::kBits > 32;  // between two words
      take(row,
           code.decode(split ? words[k] >> shift | words[split ? k + 1 : k] << (32 - shift) % 32
                             : words[k] >> shift));
    }
  }
};

template <class C>
DEVICE void decode(const Decode& a) {
  for_blocks(a.layout, a.count, [&](u64 block) {
    const Share<C> share(a.layout, a.count, block);
    if (share.values == 0) return;
    float* const out = a.out + share.value;
    Codes<C> codes;
    codes.load(a.payload, share);
    float before[kMost<C>];
    UNROLL for (int row = 0; row < kMost<C>; ++row) before[row] =
        a.adds && row < share.values ? out[row * kRow] : kNothing;
    codes.decode(share, a.bad_scale, [&](int row, float x) {
      if (row < share.values) out[row * kRow] = before[row] + x;
    });
  });
}

// Encoding ----------------------------------------------------------------------------------------

/// Payloads whose loads are under way at once.
template <class C>
constexpr int kAtOnce = kWords<C> > 4 ? 2 : 4;

/// Adds the parts from `part` on, as many as are payloads, up to kAtOnce; returns how many.
template <class C>
DEVICE int add_payloads(const Encode& a, const Share<C>& share, int part, float (&x)[kMost<C>]) {
  const int end = part < a.own ? a.own : a.part_count;
  Codes<C> codes[kAtOnce<C>];
  UNROLL for (int k = 0; k < kAtOnce<C>; ++k) {
    if (part + k < end) codes[k].load(static_cast<const u32*>(a.parts[part + k]), share);
  }
  const int count = end - part < kAtOnce<C> ? end - part : kAtOnce<C>;
  ROLLED for (int done = 0; done < count; ++done) {
    u32* const bad_scale = a.bad_scales ? a.bad_scales + part + done : nullptr;
    codes[0].decode(share, bad_scale, [&](int row, float value) { x[row] += value; });
    UNROLL for (int k = 1; k < kAtOnce<C>; ++k) codes[k - 1] = codes[k];
  }
  return count;
}

template <class C>
DEVICE void add_values(const float* values, const Share<C>& share, float (&x)[kMost<C>]) {
  float loaded[kMost<C>];
  UNROLL for (int row = 0; row < kMost<C>; ++row) loaded[row] =
      row < share.values ? __ldcs(values + share.value + row * kRow) : 0;
  UNROLL for (int row = 0; row < kMost<C>; ++row) x[row] += loaded[row];
}

/// What is to be encoded: the sum of the parts and the residual, and zeros where there is nothing.
template <class C>
DEVICE void gather(const Encode& a, const Share<C>& share, float (&x)[kMost<C>]) {
  UNROLL for (float& each : x) each = kNothing;
  ROLLED for (int part = 0; part < a.part_count;) {
    if (part == a.own) {
      add_values(static_cast<const float*>(a.parts[part]), share, x);
      ++part;
    } else {
      part += add_payloads(a, share, part, x);
    }
  }
  float left[kMost<C>];
  UNROLL for (int row = 0; row < kMost<C>; ++row) left[row] =
      a.residual && row < share.values ? __ldcs(a.residual + share.value + row * kRow) : kNothing;
  if (a.factor != 1) {
    UNROLL for (float& each : x) each *= a.factor;
    if (a.residual) {
      UNROLL for (float& each : left) each *= a.factor;
    }
  }
  UNROLL for (int row = 0; row < kMost<C>; ++row) x[row] =
      row < share.values ? x[row] + left[row] : 0;
}

template <int kRows>
DEVICE u32 greatest(const float (&x)[kRows]) {
  u32 found = 0;
  UNROLL for (const float each : x) {
    const u32 magnitude = __float_as_uint(each) & ~kSign;
    found = magnitude > found ? magnitude : found;
  }
  return found;
}

/// Of the values times `factor`, their squares or absolute values.
template <bool kSquares, int kRows>
DEVICE float scaled_sum(float factor, const float (&x)[kRows], const Team& team) {
  return team.sum([&](float s) {
    const float by = hidden(factor);
    UNROLL for (const float each : x) {
      const float scaled = each * by;
      s += kSquares ? scaled * scaled : fabsf(scaled);
    }
    return s;
  });
}

/// The norm of `count` values of which the greatest is normal; otherwise anything.
template <int kRows>
DEVICE float norm_of(NormOf norm, u32 max, const float (&x)[kRows], u32 count, const Team& team) {
  if (norm == NormOf::max) return __uint_as_float(max);
  // Times a power of two the greatest value is at least 2 and less than 4, so nothing overflows.
  const float factor = __uint_as_float((255 - (max >> 23)) << 23);
  if (norm == NormOf::mean)
    return scaled_sum<false>(factor, x, team) / static_cast<float>(count) / factor;
  return sqrtf(scaled_sum<true>(factor, x, team)) / factor;
}

/// Packs and stores the codes; x becomes what they leave out.
template <class C>
DEVICE void encode_rows(const Encode& a, const Share<C>& share, float scale, float (&x)[kMost<C>]) {
  const C code(scale);
  const u64 position = (a.first + share.value - share.lane) / 128;
  u32* const words = a.payload + share.word;
  float* const decoded = a.decoded ? a.decoded + share.value : nullptr;
  const int decodes = decoded ? share.values : 0;
  Philox random;
  u32 word = 0;
  UNROLL for (int row = 0; row < kMost<C>; ++row) {
    if (share.ends(row)) break;
    float noise = 0;
    if constexpr (C::kStochastic) {
      if (row % 8 == 0 && a.stochastic) random = Philox(a.key, position + row / 8, share.lane);
      if (a.stochastic) noise = random.centred(row % 8);
    }
    const Coded coded = code.encode(x[row], noise, a.stochastic);
    x[row] = scale == scale ? x[row] - coded.value : 0;
    if (row < decodes) decoded[row * kRow] = coded.value;
    const int shift = row * C::kBits % 32, k = row * C::kBits / 32;
    word |= coded.code << shift;
    if (shift + C::kBits >= 32) {
      words[k * kRow] = word;
      word = shift + C::kBits > 32 ? coded.code >> (32 - shift) % 32 : 0;
    }
  }
}

/// In units of a part.
template <class C>
DEVICE void store_residual(const Encode& a, const Share<C>& share, float (&x)[kMost<C>]) {
  if (!a.residual) return;
  if (a.factor != 1) {
    UNROLL for (float& each : x) each /= a.factor;
  }
  float* const residual = a.residual + share.value;
  UNROLL for (int row = 0; row < kMost<C>; ++row) {
    if (row < share.values) __stcs(residual + row * kRow, x[row]);
  }
}

template <class C>
DEVICE void encode(const Encode& a) {
  Team team(a.layout.doublings);
  for_blocks(a.layout, a.count, [&](u64 block) {
    const Share<C> share(a.layout, a.count, block);
    float x[kMost<C>];
    gather(a, share, x);
    const u32 max = team.greatest(greatest(x));
    float norm = 0;
    if constexpr (C::kHasNorm) norm = norm_of(a.norm, max, x, share.here, team);
    float scale = __uint_as_float(kNan);
    if (max < kInfinity) scale = C::scale(__uint_as_float(max), norm);
    if (share.here > 0 && share.first == 0 && share.lane == 0) {
      a.payload[share.scale] = __float_as_uint(scale);
      if (max >= kInfinity) report(a.not_finite);
    }
    encode_rows(a, share, scale, x);
    store_residual(a, share, x);
  });
}

}  // namespace

// The kernels -------------------------------------------------------------------------------------

#define CODEC(code, Code)                               \
  KERNEL(encode_##code, Encode, a) { encode<Code>(a); } \
  KERNEL(decode_##code, Decode, a) { decode<Code>(a); }

CODEC(linear1, Linear<1>)
CODEC(linear2, Linear<2>)
CODEC(linear3, Linear<3>)
CODEC(linear4, Linear<4>)
CODEC(linear5, Linear<5>)
CODEC(linear6, Linear<6>)
CODEC(linear7, Linear<7>)
CODEC(linear8, Linear<8>)
CODEC(e4m3, E4M3)

}  // namespace ronde::cuda
