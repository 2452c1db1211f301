// The reduction of several vectors to one, in order, in one pass (kernels/kernels.h has what is
// computed). A thread has some packets of up to 16 bytes of each input under way at once.
#include "packets.h"
#include "reduce.h"

namespace ronde::cuda {
namespace {

template <class T>
inline constexpr bool kFloating = false;
template <>
inline constexpr bool kFloating<Half> = true;
template <>
inline constexpr bool kFloating<BFloat16> = true;
template <>
inline constexpr bool kFloating<float> = true;
template <>
inline constexpr bool kFloating<double> = true;

// Operations --------------------------------------------------------------------------------------

template <class N>
struct Sum {
  static DEVICE N apply(N a, N b) { return static_cast<N>(a + b); }
};
template <class N>
struct Product {
  static DEVICE N apply(N a, N b) {
    if constexpr (sizeof(N) < sizeof(int))
      return static_cast<N>(u32{a} * u32{b});  // which wraps
    else
      return a * b;
  }
};

/// Of two numbers the greater or the less.
template <bool kMax, class N>
DEVICE N first(N a, N b) {
  return (kMax ? a > b : a < b) ? a : b;
}

DEVICE u32 bits(float x) { return __float_as_uint(x); }
DEVICE u64 bits(double x) { return static_cast<u64>(__double_as_longlong(x)); }
DEVICE float from_bits(u32 x) { return __uint_as_float(x); }
DEVICE double from_bits(u64 x) { return __longlong_as_double(static_cast<long long>(x)); }
DEVICE float nan_of(float) { return __uint_as_float(0x7fc00000); }
DEVICE double nan_of(double) { return __longlong_as_double(0x7ff8000000000000); }

/// NaN wins, in one form, and -0 is less than +0.
template <bool kMax, class N>
DEVICE N extreme(N a, N b) {
  // Equal values that differ are zeros; each of the two may be chosen first.
  const auto one = bits(first<kMax>(a, b)), other = bits(first<kMax>(b, a));
  return a == a && b == b ? from_bits(kMax ? one & other : one | other) : nan_of(a);
}

template <bool kMax, class N>
struct Extreme {
  static DEVICE N apply(N a, N b) { return first<kMax>(a, b); }
};
template <bool kMax>
struct Extreme<kMax, float> {
  static DEVICE float apply(float a, float b) { return extreme<kMax>(a, b); }
};
template <bool kMax>
struct Extreme<kMax, double> {
  static DEVICE double apply(double a, double b) { return extreme<kMax>(a, b); }
};
template <class N>
using Min = Extreme<false, N>;
template <class N>
using Max = Extreme<true, N>;

template <class N>
struct Scaling {
  N prescale, divisor, postscale;
  bool multiplies_inputs, divides, multiplies;  // which of them is not 1

  explicit DEVICE Scaling(const Reduce& a)
      : prescale(static_cast<N>(a.prescale)),
        divisor(static_cast<N>(a.divisor)),
        postscale(static_cast<N>(a.postscale)),
        multiplies_inputs(a.prescale != 1.0),
        divides(a.divisor != 1.0),
        multiplies(a.postscale != 1.0) {}

  DEVICE N before(N x) const { return multiplies_inputs ? x * prescale : x; }
  DEVICE N after(N x) const {
    if (divides) x = x / divisor;
    return multiplies ? x * postscale : x;
  }
};

// The loop ----------------------------------------------------------------------------------------

/// Inputs whose loads are under way before the first of them is needed.
constexpr int kAtOnce = 2;

template <class Op, class T>
struct Reducing {
  const Reduce& a;

  template <int kPackets, int kItems>
  DEVICE void step(u64 first, u64 at, u64 apart) {
    using N = typename Values<T>::Number;
    const Scaling<N> scaling(a);
    N values[kPackets][kItems]{};
    ROLLED for (int done = 0; done < a.in_count; done += kAtOnce) {
      Packet<T, kItems> loaded[kAtOnce][kPackets];
      UNROLL for (int k = 0; k < kAtOnce; ++k) {
        if (done + k >= a.in_count) break;
        const auto* const in = packets<kItems>(static_cast<const T*>(a.ins[done + k]), first);
        UNROLL for (int p = 0; p < kPackets; ++p) loaded[k][p] = in[at + p * apart];
      }
      UNROLL for (int k = 0; k < kAtOnce; ++k) {
        if (done + k >= a.in_count) break;
        UNROLL for (int p = 0; p < kPackets; ++p) {
          UNROLL for (int i = 0; i < kItems; ++i) {
            N x = Values<T>::widen(loaded[k][p].items[i]);
            if constexpr (kFloating<T>) x = scaling.before(x);
            values[p][i] = done + k == 0 ? x : Op::apply(values[p][i], x);
          }
        }
      }
    }
    auto* const out = packets<kItems>(static_cast<T*>(a.out), first);
    UNROLL for (int p = 0; p < kPackets; ++p) {
      Packet<T, kItems> packet;
      UNROLL for (int i = 0; i < kItems; ++i) {
        if constexpr (kFloating<T>) values[p][i] = scaling.after(values[p][i]);
        packet.items[i] = Values<T>::narrow(values[p][i]);
      }
      out[at + p * apart] = packet;
    }
  }
};

template <class Op, class T>
DEVICE void reduce(const Reduce& a) {
  // Bytes are computed in a register each, so a thread has fewer of them.
  constexpr int kBytes = sizeof(T) == 1 ? 8 : 16, kItems = kBytes / static_cast<int>(sizeof(T));
  Reducing<Op, T> reducing{a};
  const u64 before = before_packets<kItems>(static_cast<const T*>(a.out));
  bool alike = true;
  for (int k = 0; k < a.in_count; ++k)
    alike &= packet_begins<kItems>(static_cast<const T*>(a.ins[k]), before);
  work_through<2, kItems>(reducing, alike, before, a.count);
}

}  // namespace

// The kernels -------------------------------------------------------------------------------------

// Signed integers wrap, so they are summed and multiplied without a sign; "or" of truths is their
// maximum, "and" their minimum.
#define REDUCE(op, Op, dtype, T) \
  KERNEL(reduce_##op##_##dtype, Reduce, a) { reduce<Op<Values<T>::Number>, T>(a); }
#define REDUCE_ALIKE(op, Op)         \
  REDUCE(op, Op, uint8, u8)          \
  REDUCE(op, Op, uint16, u16)        \
  REDUCE(op, Op, uint32, u32)        \
  REDUCE(op, Op, uint64, u64)        \
  REDUCE(op, Op, float16, Half)      \
  REDUCE(op, Op, bfloat16, BFloat16) \
  REDUCE(op, Op, float32, float)     \
  REDUCE(op, Op, float64, double)
#define REDUCE_ORDERED(op, Op)      \
  REDUCE_ALIKE(op, Op)              \
  REDUCE(op, Op, bool, Bool)        \
  REDUCE(op, Op, int8, signed char) \
  REDUCE(op, Op, int16, short)      \
  REDUCE(op, Op, int32, int)        \
  REDUCE(op, Op, int64, long long)

REDUCE_ALIKE(sum, Sum)
REDUCE_ALIKE(product, Product)
REDUCE_ORDERED(min, Min)
REDUCE_ORDERED(max, Max)

}  // namespace ronde::cuda
