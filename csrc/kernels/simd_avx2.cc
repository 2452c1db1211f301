// The kernels for the instruction set in this file's name; see CMakeLists.txt for its flags.
#if defined(__AVX2__)
#include "kernels/simd.inc"

namespace ronde {
extern const KernelTable kAvx2Kernels;
const KernelTable kAvx2Kernels = make_table("avx2");
}  // namespace ronde
#endif
