#include "compress/top_k.h"

#include <algorithm>
#include <memory>
#include <string>

#include "compress/cut.h"
#include "compress/threshold.h"
#include "core/error.h"

namespace ronde {

std::size_t TopK::capacity_of_whole(std::size_t count) const {
  return length(share(ratio_, count), count);
}

std::shared_ptr<const Compressor> TopK::fitted(std::span<const float> values,
                                               std::span<const float> residual,
                                               std::uint64_t) const {
  const Cut cut = cut_of(values, residual, share(ratio_, values.size()), kernels_);
  return std::make_shared<Threshold>(cut, kernels_);
}

BlockTopK::BlockTopK(double ratio, std::size_t block, const KernelTable& kernels)
    : Selection(kernels), ratio_(checked_ratio(ratio)), block_(block) {
  if (block == 0 || block % kMarks || block > (1 << 16))
    throw ArgumentError("a block of top-k is a multiple of 32 elements, up to 65536, not " +
                        std::to_string(block));
}

std::size_t BlockTopK::capacity_of_whole(std::size_t count) const {
  return length(count / block_ * share(ratio_, block_) + share(ratio_, count % block_), count);
}

std::size_t BlockTopK::select(std::span<const float> values, std::span<float> residual, Draw,
                              std::uint32_t* marks) const {
  std::size_t found = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += block_) {
    const auto part = values.subspan(begin, std::min(block_, values.size() - begin));
    const auto left = residual.empty() ? residual : residual.subspan(begin, part.size());
    const Cut cut = cut_of(part, left, share(ratio_, part.size()), kernels_);
    found += mark(part, left, cut, 0, marks + begin / kMarks, kernels_);
  }
  return found;
}

}  // namespace ronde
