// The kernels for the instruction set in this file's name; see CMakeLists.txt for its flags.
#include "kernels/simd.inc"

namespace ronde {
extern const KernelTable kBaselineKernels;
const KernelTable kBaselineKernels = make_table("baseline");
}  // namespace ronde
