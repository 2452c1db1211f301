#include "compress/threshold.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace ronde {
namespace {

float checked(float least) {
  if (!(least > 0) || !std::isfinite(least))
    throw ArgumentError("a threshold is positive and finite as a float32, not " +
                        std::to_string(least));
  return least;
}

}  // namespace

Threshold::Threshold(float least, const KernelTable& kernels)
    : Threshold(Cut{.above = magnitude(checked(least)) - 1}, kernels) {}

}  // namespace ronde
