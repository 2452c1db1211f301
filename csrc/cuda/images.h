// The kernels that this build contains, compiled: an image for each file and architecture.
#pragma once

#include <span>

namespace ronde::cuda {

struct Image {
  const char* file;  // "reduce"
  int architecture;  // 90 for sm_90
  const void* cubin;
};

/// None where Ronde was built without CUDA.
std::span<const Image> images();

}  // namespace ronde::cuda
