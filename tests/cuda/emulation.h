// The words of CUDA for a host's compiler, so that kernels run without a GPU. Included by
// csrc/cuda/kernels/device.h where no CUDA compiler is at work.
//
// A launch runs its blocks one after another, and the threads of a block as fibres of one thread:
// a fibre runs until it meets a barrier or an operation of its warp, and goes on when all have come
// that must take part. If they never will, or come to different places, that is reported and the
// process aborts.
//
// EMULATION_ORDER=forward|backward|SEED says in which order threads and blocks take turns.
//
// AddressSanitizer knows the fibres, and shared arrays are statics, with red zones around them.
// ThreadSanitizer takes each fibre for a thread, and only barriers, __syncwarp and acquire and
// release for an order: so it finds races between CUDA's threads and blocks.
//
// Kernels announce themselves, for the fake driver (fake_cuda.cc).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>

#define DEVICE inline
#define UNROLL
#define ROLLED
#define KERNEL(name, Arguments, a)                                                   \
  static void name(const Arguments& a);                                              \
  static const ::emulation::Announcement announced_##name(                           \
      #name, [](const void* given) { name(*static_cast<const Arguments*>(given)); }, \
      sizeof(Arguments));                                                            \
  static void name(const Arguments& a)
#if defined(__SANITIZE_THREAD__)
// Together, as they are others in each block (emulation.cc). GCC ignores that in templates: there
// shared arrays stand in functions that are none.
#define __shared__ static __attribute__((section("emulated_shared")))
#else
#define __shared__ static
#endif
#define __device__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace emulation {

// Kernels -----------------------------------------------------------------------------------------

struct Kernel {
  void (*run)(const void* arguments);  // as one thread
  std::size_t bytes;                   // of the arguments
};

/// All that were compiled into this program or library.
std::unordered_map<std::string, Kernel>& kernels();

struct Announcement {
  Announcement(const char* name, void (*run)(const void*), std::size_t bytes) {
    kernels()[name] = {run, bytes};
  }
};

/// One at a time in the whole process, as shared arrays are statics. `arguments`: bytes of them.
void launch(const Kernel& kernel, unsigned blocks, unsigned threads, const void* arguments);

// Where a thread is -------------------------------------------------------------------------------

struct Index {
  dim3 thread, block, threads, blocks;
};
const Index& index();

/// The line of a barrier or warp operation.
struct Site {
  const char* what;
  const char* file;
  int line;
};

/// Of a block; returns how many voted.
int barrier(const Site& site, bool vote);
/// What all lanes give, of those in `mask`. It stays until the next operation of this warp.
const std::uint64_t* exchange(const Site& site, unsigned mask, std::uint64_t value);
/// The same, and it orders memory.
void synchronise_warp(const Site& site, unsigned mask);
/// Another may go on.
void pause();
[[noreturn]] void stop(const std::string& why);

inline unsigned lane() { return index().thread.x % 32; }

template <class T>
std::uint64_t bits(T x) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t all = 0;
  std::memcpy(&all, &x, sizeof x);
  return all;
}
template <class T>
T value(std::uint64_t all) {
  T x;
  std::memcpy(&x, &all, sizeof x);
  return x;
}

inline unsigned ballot(const Site& site, unsigned mask, bool vote) {
  const auto* all = exchange(site, mask, vote);
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; ++i) votes |= static_cast<unsigned>(mask >> i & all[i] & 1) << i;
  return votes;
}

/// `from`: a lane; its own value where that is outside its part of the warp.
template <class T>
T shuffle(const Site& site, unsigned mask, T x, int from, int width) {
  const int first = static_cast<int>(lane()) / width * width;
  const auto* all = exchange(site, mask, bits(x));
  if (from < first || from >= first + width) return x;
  if (!(mask >> from & 1)) stop("a shuffle takes from a lane that does not take part");
  return value<T>(all[from]);
}

template <class F>
unsigned reduce(const Site& site, unsigned mask, unsigned x, F f) {
  const auto* all = exchange(site, mask, x);
  bool any = false;
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    result = any ? f(result, static_cast<unsigned>(all[i])) : static_cast<unsigned>(all[i]);
    any = true;
  }
  return result;
}

inline unsigned matching(const Site& site, unsigned mask, std::uint64_t x) {
  const auto* all = exchange(site, mask, x);
  unsigned lanes = 0;
  for (unsigned i = 0; i < 32; ++i) lanes |= (mask >> i & 1) && all[i] == x ? 1u << i : 0;
  return lanes;
}

/// Of NaN one form, as the hardware does it.
float widen_half(std::uint16_t half);
/// To nearest even; of NaN one form again.
std::uint16_t narrow_half(float x);

}  // namespace emulation

// CUDA's own words --------------------------------------------------------------------------------

#define threadIdx (::emulation::index().thread)
#define blockIdx (::emulation::index().block)
#define blockDim (::emulation::index().threads)
#define gridDim (::emulation::index().blocks)

#define EMULATION_SITE(what) (::emulation::Site{what, __FILE__, __LINE__})
#define __syncthreads() ((void)::emulation::barrier(EMULATION_SITE("__syncthreads"), false))
#define __syncthreads_or(x) \
  (::emulation::barrier(EMULATION_SITE("__syncthreads_or"), (x) != 0) != 0)
#define __syncthreads_count(x) \
  (::emulation::barrier(EMULATION_SITE("__syncthreads_count"), (x) != 0))
#define __syncwarp() (::emulation::synchronise_warp(EMULATION_SITE("__syncwarp"), 0xffffffff))
#define __ballot_sync(mask, x) \
  (::emulation::ballot(EMULATION_SITE("__ballot_sync"), mask, (x) != 0))
#define __any_sync(mask, x) (::emulation::ballot(EMULATION_SITE("__any_sync"), mask, (x) != 0) != 0)
#define __all_sync(mask, x) \
  (::emulation::ballot(EMULATION_SITE("__all_sync"), mask, (x) != 0) == (mask))
#define EMULATION_LANE static_cast<int>(::emulation::lane())
#define EMULATION_WIDTH(...) (32 __VA_OPT__(*0 + (__VA_ARGS__)))
#define __shfl_sync(mask, x, from, ...)                                              \
  (::emulation::shuffle(                                                             \
      EMULATION_SITE("__shfl_sync"), mask, x,                                        \
      EMULATION_LANE / EMULATION_WIDTH(__VA_ARGS__) * EMULATION_WIDTH(__VA_ARGS__) + \
          static_cast<int>(from) % EMULATION_WIDTH(__VA_ARGS__),                     \
      EMULATION_WIDTH(__VA_ARGS__)))
#define __shfl_xor_sync(mask, x, by, ...)                           \
  (::emulation::shuffle(EMULATION_SITE("__shfl_xor_sync"), mask, x, \
                        EMULATION_LANE ^ static_cast<int>(by), EMULATION_WIDTH(__VA_ARGS__)))
#define __shfl_up_sync(mask, x, by, ...)                           \
  (::emulation::shuffle(EMULATION_SITE("__shfl_up_sync"), mask, x, \
                        EMULATION_LANE - static_cast<int>(by), EMULATION_WIDTH(__VA_ARGS__)))
#define __shfl_down_sync(mask, x, by, ...)                           \
  (::emulation::shuffle(EMULATION_SITE("__shfl_down_sync"), mask, x, \
                        EMULATION_LANE + static_cast<int>(by), EMULATION_WIDTH(__VA_ARGS__)))
#define EMULATION_REDUCE(name, mask, x, f) \
  (::emulation::reduce(EMULATION_SITE(name), mask, x, [](unsigned a, unsigned b) { return f; }))
#define __reduce_max_sync(mask, x) EMULATION_REDUCE("__reduce_max_sync", mask, x, std::max(a, b))
#define __reduce_min_sync(mask, x) EMULATION_REDUCE("__reduce_min_sync", mask, x, std::min(a, b))
#define __reduce_add_sync(mask, x) EMULATION_REDUCE("__reduce_add_sync", mask, x, a + b)
#define __reduce_or_sync(mask, x) EMULATION_REDUCE("__reduce_or_sync", mask, x, a | b)
#define __reduce_and_sync(mask, x) EMULATION_REDUCE("__reduce_and_sync", mask, x, a& b)
#define __match_any_sync(mask, x) \
  (::emulation::matching(EMULATION_SITE("__match_any_sync"), mask, ::emulation::bits(x)))

template <class T>
T atomicAdd(T* at, T x) {
  return __atomic_fetch_add(at, x, __ATOMIC_RELAXED);
}
template <class T>
T atomicOr(T* at, T x) {
  return __atomic_fetch_or(at, x, __ATOMIC_RELAXED);
}
template <class T>
T atomicMax(T* at, T x) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < x &&
         !__atomic_compare_exchange_n(at, &old, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __nanosleep(unsigned) { emulation::pause(); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(unsigned x) { return std::countl_zero(x); }
inline int __ffs(unsigned x) { return x ? std::countr_zero(x) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
/// The upper and lower word as one, shifted right.
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
  return static_cast<unsigned>((std::uint64_t{high} << 32 | low) >> by % 32);
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, T x) {
  *to = x;
}
template <class T>
T __ldg(const T* from) {
  return *from;
}
