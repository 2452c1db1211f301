// What the host and the kernels have in common: it knows neither the host's library nor the
// toolkit's, as NVRTC compiles without either. The headers named after a kernel file have what its
// kernels are given: one struct each, by value.
#pragma once

namespace ronde::cuda {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long long;

/// Threads of a block, of all kernels.
inline constexpr int kThreads = 256;

}  // namespace ronde::cuda
