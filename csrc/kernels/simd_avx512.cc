// The kernels for the instruction set in this file's name; see CMakeLists.txt for its flags.
#if defined(__AVX512F__)
#include "kernels/simd.inc"

namespace ronde {
extern const KernelTable kAvx512Kernels;
const KernelTable kAvx512Kernels = make_table("avx512");
}  // namespace ronde
#endif
