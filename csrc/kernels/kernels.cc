#include "kernels/kernels.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace ronde {

extern const KernelTable kBaselineKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
#endif

namespace {

struct Candidate {
  const KernelTable* table;
  bool runnable;
};

std::size_t float_index(DType dtype) {
  return static_cast<std::size_t>(dtype) - static_cast<std::size_t>(DType::float16);
}

/// Best first.
auto candidates() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return std::to_array<Candidate>(
      {{&kAvx512Kernels, avx512}, {&kAvx2Kernels, avx2}, {&kBaselineKernels, true}});
#else
  return std::to_array<Candidate>({{&kBaselineKernels, true}});
#endif
}

const KernelTable& choose() {
  if (const char* wanted = std::getenv("RONDE_SIMD"); wanted && *wanted) {
    if (const KernelTable* table = kernels(wanted)) return *table;
    throw ArgumentError(std::string("RONDE_SIMD=") + wanted +
                        ": this build or this processor has no such instruction set");
  }
  for (const auto& candidate : candidates()) {
    if (candidate.runnable) return *candidate.table;
  }
  return kBaselineKernels;
}

}  // namespace

const KernelTable* kernels(const char* name) {
  for (const auto& candidate : candidates()) {
    if (candidate.runnable && std::strcmp(candidate.table->name, name) == 0) return candidate.table;
  }
  return nullptr;
}

const KernelTable& kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

void KernelTable::reduce_many(const Reduction& reduction, Outputs outs, Inputs ins,
                              std::size_t count, bool streaming) const {
  Reduction done = reduction.of(ins.size());
  if (ins.size() == 1 && !reduction.scales()) {  // a copy, which no type may touch
    if (outs.size() == 1 && outs[0] == ins[0]) return;
    done = {.dtype = DType::uint8};
    count *= size_of(reduction.dtype);
  }
  reduce[static_cast<int>(done.op)][static_cast<int>(done.dtype)](
      done, outs.data(), outs.size(), ins.data(), ins.size(), count, streaming);
}

void KernelTable::mean(DType dtype, void* out, const Mean& left, const Mean& right,
                       std::size_t count) const {
  const double all = left.contributions + right.contributions;
  // Weights rather than counts: the sum of what they multiply may be beyond float32.
  add_weighted(dtype, out, {left.data, left.contributions / all},
               {right.data, right.contributions / all}, count);
}

void KernelTable::add_weighted(DType dtype, void* out, const Weighted& left, const Weighted& right,
                               std::size_t count) const {
  weighted_sums[float_index(dtype)](left.data, left.weight, right.data, right.weight, out, count);
}

Dots KernelTable::dots(DType dtype, const void* left, const void* right, std::size_t count) const {
  return dot_products[float_index(dtype)](left, right, count);
}

}  // namespace ronde
