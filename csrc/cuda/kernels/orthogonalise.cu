// Vectors made orthonormal (compress/low_rank.cc has the order): by one block, as each step needs
// the one before. The products of a dot product are made by all warps but the first, which adds
// them in eight lanes, as the processor does.
#include "device.h"
#include "low_rank.h"

namespace ronde::cuda {
namespace {

constexpr u32 kSums = 8;                              // lanes of a dot product
constexpr u32 kMakers = kThreads - kWarp, kMade = 8;  // threads that make products; of each
constexpr u32 kPiece = kMakers * kMade;               // products that are added meanwhile
static_assert(kMostVectors * kSums == kThreads);

DEVICE double sum_of_eight(double x) {
  UNROLL for (u32 by = kSums / 2; by > 0; by /= 2) x += __shfl_xor_sync(kAllLanes, x, by, kSums);
  return x;
}

DEVICE bool is_finite(double x) {
  return (static_cast<u64>(__double_as_longlong(x)) >> 52 & 0x7ff) != 0x7ff;
}

/// The length of vector thread / 8: eight threads have one.
DEVICE double norm_of(const Orthogonalise& a) {
  constexpr u32 kLoads = 16;
  const u32 k = threadIdx.x / kSums;
  const float* const vector = a.vectors + k * a.length;
  double sum = 0;
  ROLLED for (u64 i = threadIdx.x % kSums; i < a.length && k < a.count; i += kLoads * kSums) {
    float x[kLoads];
    UNROLL for (u32 j = 0; j < kLoads; ++j) {
      x[j] = i + j * kSums < a.length ? vector[i + j * kSums] : 0;
    }
    UNROLL for (u32 j = 0; j < kLoads; ++j) sum += double{x[j]} * double{x[j]};
  }
  return sqrt(sum_of_eight(sum));
}

/// The next thing that is done to vector x: x -= share * taken, and then it is multiplied by
/// another.
struct Pass {
  const float* from;   // what x is at first, or null
  const float* taken;  // if it is not the first
  double share;
  const float* with;  // or null, which is x itself
};

/// Makes the products of a piece, from element `begin` on; behind the last they are zero. An
/// element is always that of one thread.
DEVICE void make(const Orthogonalise& a, const Pass& pass, u64 begin, double* products) {
  const u64 first = begin + threadIdx.x - kWarp;
  double x[kMade];
  float taken[kMade], with[kMade];
  UNROLL for (u32 i = 0; i < kMade; ++i) {
    const u64 at = first + i * kMakers;
    const bool there = at < a.length;
    x[i] = !there ? 0 : pass.from ? double{pass.from[at]} : a.scratch[at];
    taken[i] = there && pass.taken ? pass.taken[at] : 0;
    with[i] = there && pass.with ? pass.with[at] : 0;
  }
  UNROLL for (u32 i = 0; i < kMade; ++i) {
    const u64 at = first + i * kMakers;
    if (pass.taken) x[i] -= pass.share * taken[i];
    if (at < a.length) a.scratch[at] = x[i];
    products[i * kMakers + threadIdx.x - kWarp] = x[i] * (pass.with ? double{with[i]} : x[i]);
  }
}

DEVICE double add(double sum, const double* products) {
  constexpr u32 kLoads = 16;
  static_assert(kPiece % (kLoads * kSums) == 0);
  ROLLED for (u32 i = 0; i < kPiece; i += kLoads * kSums) {
    double x[kLoads];
    UNROLL for (u32 j = 0; j < kLoads; ++j) x[j] = products[i + j * kSums + threadIdx.x % kSums];
    UNROLL for (u32 j = 0; j < kLoads; ++j) sum += x[j];
  }
  return sum;
}

/// The dot product, in all threads: the first warp adds what the others make.
DEVICE double dot(const Orthogonalise& a, const Pass& pass) {
  __shared__ double products[2][kPiece], result;
  const bool adds = threadIdx.x < kWarp;
  double sum = 0;
  if (!adds) make(a, pass, 0, products[0]);
  __syncthreads();
  u32 which = 0;
  for (u64 begin = 0; begin < a.length; begin += kPiece, which ^= 1) {
    if (adds)
      sum = add(sum, products[which]);
    else
      make(a, pass, begin + kPiece, products[which ^ 1]);
    __syncthreads();
  }
  if (adds) {
    sum = sum_of_eight(sum);
    if (threadIdx.x == 0) result = sum;
  }
  __syncthreads();
  return result;
}

/// Modified Gram-Schmidt, twice.
DEVICE void orthogonalise_vector(const Orthogonalise& a, u32 k, double norm) {
  const auto vector = [&](u32 number) { return a.vectors + number * a.length; };
  double share = 0;
  for (u32 j = 0; j <= 2 * k; ++j) {
    const Pass pass{j == 0 ? vector(k) : nullptr, j == 0 ? nullptr : vector((j - 1) % k), share,
                    j == 2 * k ? nullptr : vector(j % k)};
    share = dot(a, pass);
  }
  const double left = sqrt(share), scale = left > 0x1p-20 * norm ? 1 / left : 0;
  if (threadIdx.x < kWarp) return;
  for (u64 i = threadIdx.x - kWarp; i < a.length; i += kMakers)
    vector(k)[i] = static_cast<float>(a.scratch[i] * scale);
}

DEVICE void orthogonalise(const Orthogonalise& a) {
  __shared__ double norms[kMostVectors];
  const double norm = norm_of(a);
  if (threadIdx.x % kSums == 0) norms[threadIdx.x / kSums] = norm;
  const bool finite = !__syncthreads_or(!is_finite(norm));
  if (threadIdx.x == 0) *a.finite = finite;
  if (!finite) return;
  for (u32 k = 0; k < a.count; ++k) orthogonalise_vector(a, k, norms[k]);
}

}  // namespace

KERNEL(orthogonalise_vectors, Orthogonalise, a) { orthogonalise(a); }

}  // namespace ronde::cuda
