// Dot products of two vectors, of any floating type: what the kernels of dot.inc compute.
#pragma once

#include <cstddef>

namespace ronde {

struct Dots {
  double left_left, left_right, right_right;
};

/// In double precision. In which order the products are added depends on `count` alone.
using DotsKernel = Dots (*)(const void* left, const void* right, std::size_t count);

}  // namespace ronde
