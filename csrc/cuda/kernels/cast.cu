// float32 as the half types, with what the rounding leaves out (compress/cast.h), and to and from
// float64. A thread has two to four packets of 4 floats under way, and 32 registers, so that a
// multiprocessor is full of them.
#include "cast.h"
#include "packets.h"

namespace ronde::cuda {
namespace {

constexpr int kItems = 4;

DEVICE bool finite(float x) { return (__float_as_uint(x) & 0x7f800000) != 0x7f800000; }

DEVICE float lengthen(BFloat16 x) { return widen(x); }

/// The conversion would give one NaN for all.
DEVICE float lengthen(Half x) {
  const u32 sign = u32{x.bits & 0x8000u} << 16, magnitude = x.bits & 0x7fffu;
  return magnitude > 0x7c00 ? __uint_as_float(sign | 0x7fc00000 | magnitude << 13) : widen(x);
}

template <class T, bool kResidual>
struct Encoding {
  const EncodeCasts& a;
  bool all_finite = true;

  template <int kPackets, int kItems>
  DEVICE void step(u64 first, u64 at, u64 apart) {
    const auto* const values = packets<kItems>(a.values, first);
    auto* const residual = packets<kItems>(a.residual, first);
    auto* const payload = packets<kItems>(a.payload, first);
    Packet<float, kItems> x[kPackets], left[kPackets];
    UNROLL for (int p = 0; p < kPackets; ++p) {
      x[p] = values[at + p * apart];
      if constexpr (kResidual) left[p] = residual[at + p * apart];
    }
    UNROLL for (int p = 0; p < kPackets; ++p) {
      Packet<u16, kItems> shorter;
      UNROLL for (int i = 0; i < kItems; ++i) {
        float value = x[p].items[i];
        if constexpr (kResidual) value += left[p].items[i];
        const T sent = narrow<T>(value);
        shorter.items[i] = sent.bits;
        const bool fits = finite(widen(sent));
        all_finite &= fits;
        if constexpr (kResidual) left[p].items[i] = fits ? value - widen(sent) : 0.0f;
      }
      payload[at + p * apart] = shorter;
      if constexpr (kResidual) residual[at + p * apart] = left[p];
    }
  }
};

template <class T, bool kResidual>
DEVICE bool encode(const EncodeCasts& a) {
  Encoding<T, kResidual> encoding{a};
  const u64 before = before_packets<kItems>(a.values);
  bool alike = packet_begins<kItems>(a.payload, before);
  if constexpr (kResidual) alike &= packet_begins<kItems>(a.residual, before);
  work_through<2, kItems>(encoding, alike, before, a.count);
  return encoding.all_finite;
}

template <class T>
DEVICE void encode(const EncodeCasts& a) {
  const bool all_finite = a.residual ? encode<T, true>(a) : encode<T, false>(a);
  if (__syncthreads_or(!all_finite) && threadIdx.x == 0 && a.not_finite) atomicOr(a.not_finite, 1u);
}

template <class T, bool kAdd>
struct Decoding {
  const DecodeCasts& a;

  template <int kPackets, int kItems>
  DEVICE void step(u64 first, u64 at, u64 apart) {
    const auto* const payload = packets<kItems>(a.payload, first);
    auto* const out = packets<kItems>(a.out, first);
    Packet<u16, kItems> shorter[kPackets];
    Packet<float, kItems> x[kPackets];
    UNROLL for (int p = 0; p < kPackets; ++p) {
      shorter[p] = payload[at + p * apart];
      if constexpr (kAdd) x[p] = out[at + p * apart];
    }
    UNROLL for (int p = 0; p < kPackets; ++p) {
      UNROLL for (int i = 0; i < kItems; ++i) {
        const float sent = lengthen(T{shorter[p].items[i]});
        x[p].items[i] = kAdd ? x[p].items[i] + sent : sent;
      }
      out[at + p * apart] = x[p];
    }
  }
};

template <class T, bool kAdd>
DEVICE void decode(const DecodeCasts& a) {
  Decoding<T, kAdd> decoding{a};
  const u64 before = before_packets<kItems>(a.out);
  const bool alike = packet_begins<kItems>(a.payload, before);
  work_through<kAdd ? 2 : 4, kItems>(decoding, alike, before, a.count);
}

// float64. Of NaN the processor keeps the sign and the first bits, and makes it quiet; the
// conversions would give one NaN for all.

DEVICE void convert(double from, float& to) {
  const u64 bits = static_cast<u64>(__double_as_longlong(from));
  const u32 sign = static_cast<u32>(bits >> 32) & 0x80000000;
  const u32 nan = sign | 0x7fc00000 | (static_cast<u32>(bits >> 29) & 0x3fffff);
  to = from == from ? static_cast<float>(from) : __uint_as_float(nan);
}

DEVICE void convert(float from, double& to) {
  const u64 bits = __float_as_uint(from), sign = (bits & 0x80000000) << 32;
  const u64 nan = sign | 0x7ff8000000000000 | (bits & 0x3fffff) << 29;
  to = from == from ? static_cast<double>(from) : __longlong_as_double(static_cast<long long>(nan));
}

template <class From, class To>
struct Converting {
  const From* from;
  To* to;

  template <int kPackets, int kItems>
  DEVICE void step(u64 first, u64 at, u64 apart) {
    const auto* const source = packets<kItems>(from, first);
    auto* const target = packets<kItems>(to, first);
    Packet<From, kItems> x[kPackets];
    UNROLL for (int p = 0; p < kPackets; ++p) x[p] = source[at + p * apart];
    UNROLL for (int p = 0; p < kPackets; ++p) {
      Packet<To, kItems> y;
      UNROLL for (int i = 0; i < kItems; ++i) convert(x[p].items[i], y.items[i]);
      target[at + p * apart] = y;
    }
  }
};

template <class From, class To>
DEVICE void convert_all(const ConvertFloats& a) {
  Converting<From, To> converting{static_cast<const From*>(a.from), static_cast<To*>(a.to)};
  const u64 before = before_packets<kItems>(converting.to);
  work_through<1, kItems>(converting, packet_begins<kItems>(converting.from, before), before,
                          a.count);
}

}  // namespace

KERNEL(cast_encode_float16, EncodeCasts, a) { encode<Half>(a); }
KERNEL(cast_encode_bfloat16, EncodeCasts, a) { encode<BFloat16>(a); }
KERNEL(cast_decode_float16, DecodeCasts, a) { decode<Half, false>(a); }
KERNEL(cast_decode_bfloat16, DecodeCasts, a) { decode<BFloat16, false>(a); }
KERNEL(cast_decode_add_float16, DecodeCasts, a) { decode<Half, true>(a); }
KERNEL(cast_decode_add_bfloat16, DecodeCasts, a) { decode<BFloat16, true>(a); }
KERNEL(cast_narrow, ConvertFloats, a) { convert_all<double, float>(a); }
KERNEL(cast_widen, ConvertFloats, a) { convert_all<float, double>(a); }

}  // namespace ronde::cuda
