#include "cuda/reduce.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "cuda/kernels/reduce.h"

namespace ronde::cuda {
namespace {

/// Sums and products of signed integers are those without a sign; of truths they are "or" and
/// "and".
std::string kernel_of(ReduceOp op, DType dtype) {
  const bool adds = op == ReduceOp::sum || op == ReduceOp::product;
  if (adds && dtype == DType::boolean) op = op == ReduceOp::sum ? ReduceOp::max : ReduceOp::min;
  std::string type(name_of(dtype));
  if (adds && type.starts_with("int")) type = "u" + type;
  return "reduce_" + std::string(name_of(op)) + "_" + type;
}

}  // namespace

void reduce_many(Device& device, StreamHandle stream, const Reduction& reduction, void* out,
                 std::span<const void* const> ins, std::size_t count) {
  if (ins.empty() || ins.size() > kMostInputs)
    throw ArgumentError("a device reduces 1 to " + std::to_string(kMostInputs) +
                        " inputs at once, not " + std::to_string(ins.size()));
  if (count == 0) return;
  if (ins.size() == 1 && !reduction.scales()) {
    if (out != ins[0]) device.copy(stream, out, ins[0], count * size_of(reduction.dtype));
    return;
  }
  constexpr std::size_t kPacket = 16;
  const auto items = (count * size_of(reduction.dtype) + kPacket - 1) / kPacket;
  const auto kernel = kernel_of(reduction.op, reduction.dtype);
  const auto done = reduction.of(ins.size());
  Reduce arguments{.out = out,
                   .ins = {},
                   .in_count = static_cast<int>(ins.size()),
                   .count = count,
                   .prescale = done.prescale,
                   .divisor = done.divisor,
                   .postscale = done.postscale};
  std::ranges::copy(ins, arguments.ins);
  device.launch(stream, kernel, items, arguments);
}

}  // namespace ronde::cuda
