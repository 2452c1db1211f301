#include "compress/quantiser.h"

#include <string>

#include "core/error.h"

namespace ronde {
namespace {

const Quantisation& checked(const Quantisation& quantisation) {
  if (quantisation.bits < 1 || quantisation.bits > 8)
    throw ArgumentError("a linear quantiser must have 1 to 8 bits, not " +
                        std::to_string(quantisation.bits));
  const std::size_t group = group_of(quantisation.bits);
  if (quantisation.block == 0 || quantisation.block % group || quantisation.block > kMaxBlock)
    throw ArgumentError("a block of " + std::to_string(quantisation.bits) +
                        "-bit codes must be a multiple of " + std::to_string(group) +
                        " elements, up to " + std::to_string(kMaxBlock) + ", not " +
                        std::to_string(quantisation.block));
  return quantisation;
}

}  // namespace

Quantiser::Quantiser(const Quantisation& quantisation, const KernelTable& kernels)
    : FixedLength(kernels, {linear_code(checked(quantisation).bits),
                            {quantisation.block, quantisation.norm},
                            quantisation.rounding}),
      quantisation_(quantisation) {}

std::size_t Quantiser::capacity(std::size_t count) const {
  return block_bytes(quantisation_.bits, quantisation_.block, count);
}

bool Quantiser::unbiased() const {
  return quantisation_.rounding == Rounding::stochastic && quantisation_.norm != Norm::mean;
}

}  // namespace ronde
