// What a kernel file includes first. It is compiled by NVRTC for a wheel, by nvcc to hear another
// opinion, and for tests by the host's compiler, with tests/cuda/emulation.h for the words of CUDA.
//
// Every operation on floats is rounded once (-fmad=false), and nothing depends on the order in
// which threads run: the bits are those of the processor's kernels (csrc/kernels), whatever the
// GPU. Only which of the NaNs an addition or multiplication gives is the hardware's.
#pragma once

#include "types.h"

#if defined(__CUDACC__)

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define KERNEL(name, Arguments, a) \
  extern "C" __global__ void __launch_bounds__(kThreads) name(const __grid_constant__ Arguments a)

#else

#include "emulation.h"

#endif

namespace ronde::cuda {

inline constexpr u32 kWarp = 32, kAllLanes = 0xffffffff;

/// This thread among all, and how many there are.
DEVICE u64 thread() { return u64{blockIdx.x} * kThreads + threadIdx.x; }
DEVICE u64 threads() { return u64{gridDim.x} * kThreads; }

// Half types
// ----------------------------------------------------------------------------------------

struct Half {
  u16 bits;
};

struct BFloat16 {
  u16 bits;
};

DEVICE float widen(BFloat16 x) { return __uint_as_float(u32{x.bits} << 16); }

DEVICE float widen(Half x) {
#if defined(__CUDACC__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  return emulation::widen_half(x.bits);
#endif
}

template <class T>
DEVICE T narrow(float x);

template <>
DEVICE BFloat16 narrow<BFloat16>(float x) {
  const u32 bits = __float_as_uint(x);
  const u32 nearest = bits + 0x7fff + ((bits >> 16) & 1);  // ties to even
  return {static_cast<u16>((x == x ? nearest : bits | 0x00400000) >> 16)};
}

template <>
DEVICE Half narrow<Half>(float x) {
  // The conversion would give one NaN for all.
  const u32 bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
  const u32 nan = (bits >> 16 & 0x8000) | (magnitude >> 13 & 0x1ff) | 0x7e00;
  u16 half;
#if defined(__CUDACC__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
#else
  half = emulation::narrow_half(x);
#endif
  return {x == x ? half : static_cast<u16>(nan)};
}

}  // namespace ronde::cuda
