#include "cuda/weighted.h"

#include <string>

#include "core/error.h"
#include "cuda/kernels/weighted.h"

namespace ronde::cuda {

void add_weighted(Device& device, StreamHandle stream, DType dtype, void* out, const Weighted& left,
                  const Weighted& right, std::size_t count) {
  const std::string type(name_of(dtype));
  if (!is_floating(dtype)) throw ArgumentError("no weighted sums of " + type);
  if (count == 0) return;
  constexpr std::size_t kPacket = 16;
  device.launch(stream, "weighted_" + type, (count * size_of(dtype) + kPacket - 1) / kPacket,
                AddWeighted{.out = out,
                            .left = left.data,
                            .right = right.data,
                            .left_weight = left.weight,
                            .right_weight = right.weight,
                            .count = count});
}

void mean(Device& device, StreamHandle stream, DType dtype, void* out, const Mean& left,
          const Mean& right, std::size_t count) {
  const double all = left.contributions + right.contributions;
  add_weighted(device, stream, dtype, out, {left.data, left.contributions / all},
               {right.data, right.contributions / all}, count);
}

}  // namespace ronde::cuda
