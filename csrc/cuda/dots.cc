#include "cuda/dots.h"

#include <string>

#include "core/error.h"
#include "cuda/kernels/dots.h"
#include "cuda/scratch.h"

namespace ronde::cuda {

static_assert(sizeof(Dots) == sizeof(DotSums));

void dots(Device& device, StreamHandle stream, DType dtype, const void* left, const void* right,
          std::size_t count, Dots* out) {
  const std::string type(name_of(dtype));
  if (!is_floating(dtype)) throw ArgumentError("no dot products of " + type);
  constexpr std::size_t kGroup = kDotBlock * kDotGroup;
  const std::size_t groups = (count + kGroup - 1) / kGroup;
  auto* const total = reinterpret_cast<DotSums*>(out);
  const auto scratch =
      ScratchPool::of(device, Memory::Kind::device).take(stream, groups * sizeof(DotSums));
  auto* const sums = reinterpret_cast<DotSums*>(scratch.data());
  if (groups > 0)
    device.launch(
        stream, "dot_" + type, groups * kThreads,
        DotProducts{.left = left, .right = right, .count = count, .groups = groups, .sums = sums});
  device.launch(stream, "dot_total", 1, DotTotal{.sums = sums, .groups = groups, .total = total});
}

}  // namespace ronde::cuda
