#include "cuda/images.h"

// RONDE_CUDA_IMAGE(file, architecture, path) for each, written by CMake.
#define RONDE_CUDA_IMAGE(file, architecture, path)         \
  __asm__(                                                 \
      ".pushsection .rodata\n"                             \
      ".balign 64\n"                                       \
      ".hidden ronde_" #file "_" #architecture             \
      "\n"                                                 \
      ".globl ronde_" #file "_" #architecture              \
      "\n"                                                 \
      "ronde_" #file "_" #architecture ": .incbin \"" path \
      "\"\n"                                               \
      ".popsection\n");                                    \
  extern "C" const char ronde_##file##_##architecture[];
#include "cuda_images.inc"
#undef RONDE_CUDA_IMAGE

namespace ronde::cuda {

std::span<const Image> images() {
#define RONDE_CUDA_IMAGE(file, architecture, path) \
  {#file, architecture, ronde_##file##_##architecture},
  static constexpr Image all[] = {
#include "cuda_images.inc"
      {nullptr, 0, nullptr}};
#undef RONDE_CUDA_IMAGE
  return std::span(all).first(std::size(all) - 1);
}

}  // namespace ronde::cuda
