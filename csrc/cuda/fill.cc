#include "cuda/fill.h"

#include "cuda/kernels/fill.h"
#include "kernels/neutral.h"

namespace ronde::cuda {

void fill_neutral(Device& device, StreamHandle stream, const Reduction& reduction, void* data,
                  std::size_t count) {
  if (count == 0) return;
  Fill arguments{static_cast<u8*>(data), count * size_of(reduction.dtype), 0};
  ronde::fill_neutral(
      reduction, {reinterpret_cast<std::byte*>(&arguments.pattern), sizeof(arguments.pattern)});
  constexpr std::size_t kPacket = 16;
  device.launch(stream, "fill", (arguments.bytes + kPacket - 1) / kPacket, arguments);
}

}  // namespace ronde::cuda
