#include "compress/top_k.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/cut.h"
#include "compress/positions.h"
#include "core/error.h"
#include "cuda/select.h"

namespace ronde {
namespace {

constexpr std::size_t kSample = 1 << 14, kThinnest = 64;  // values; at most one of so many
constexpr std::size_t kPiece = Picker::kPiece;

/// Sends entries that have been taken.
class Chosen final : public Sparse {
 public:
  Chosen(Entries entries, const KernelTable& kernels)
      : Sparse(kernels), entries_(std::move(entries)) {}

  std::size_t encode(std::span<const float> values, std::span<float>, Draw draw,
                     std::byte* payload) const override {
    const EntrySpan sent = entries_.between(draw.first, draw.first + values.size());
    return write_payload(sent, draw.first, values.size(), payload);
  }

 private:
  Entries entries_;
};

/// A magnitude a little less than that of the k-th largest, except in one case of some hundred. It
/// is taken from a sample, one value of each part of the vector: at the rank of the k-th largest
/// there, plus three times the spread of that rank.
std::int32_t guess(std::span<const float> values, std::span<const float> residual, std::size_t k,
                   const KernelTable& kernels) {
  const std::size_t count = values.size(), size = std::min(kSample, count / kThinnest);
  if (size == 0) return kBelowAll;
  const double rank =
      static_cast<double>(k) / static_cast<double>(count) * static_cast<double>(size);
  const auto safe = static_cast<std::size_t>(rank + 3 * std::sqrt(rank) + 3);
  if (safe >= size) return kBelowAll;
  const RandomPositions positions{count, size};
  std::vector<float> sample(size);
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t position = positions.drawn(i);
    sample[i] = residual.empty() ? values[position] : values[position] + residual[position];
  }
  const Cut cut = cut_of(sample, safe, kBelowAll, kernels);
  return cut.ties ? cut.above - 1 : cut.above;
}

/// Goes over the vector once and takes what is above the guess. Where that becomes much more than
/// k, it keeps the k largest so far, and takes no more than what is larger.
Entries largest(std::span<const float> values, std::span<float> residual, std::size_t k,
                const KernelTable& kernels) {
  Picker picker(values, residual, kernels);
  const auto go_over = [&](auto take, std::int32_t above) {
    std::size_t most = 2 * k + kPiece;
    picker.reserve(most + kPiece);
    for (std::size_t begin = 0; begin < values.size(); begin += kPiece) {
      (picker.*take)(begin, std::min(begin + kPiece, values.size()), above);
      if (picker.entries().size() <= most) continue;
      above = picker.keep_largest(0, k, above);
      most = std::max(most, 2 * picker.entries().size());  // of NaN and infinity more are kept
    }
    picker.keep_largest(0, k, above);
  };
  go_over(&Picker::take, guess(values, residual, k, kernels));
  if (picker.entries().size() < k) {
    picker.put_back(0);
    go_over(&Picker::take_again, kBelowAll);
  }
  return picker.entries();
}

}  // namespace

std::size_t TopK::capacity_of_whole(std::size_t count) const {
  return length(share(ratio_, count), count);
}

std::shared_ptr<const Compressor> TopK::for_vector(std::span<const float> values,
                                                   std::span<float> residual) const {
  return std::make_shared<Chosen>(largest(values, residual, share(ratio_, values.size()), kernels_),
                                  kernels_);
}

std::size_t TopK::scratch(const cuda::Device& device, std::size_t count) const {
  return cuda::top_k_scratch(device, count, share(ratio_, count));
}

void TopK::select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
                  const cuda::Entries& out, std::byte* scratch) const {
  cuda::top_k(device, stream, input, share(ratio_, input.count), out, scratch);
}

BlockTopK::BlockTopK(double ratio, std::size_t block, const KernelTable& kernels)
    : Selection(kernels), ratio_(checked_ratio(ratio)), block_(block) {
  if (block == 0 || block % kGrain || block > (1 << 16))
    throw ArgumentError("a block of top-k must be a multiple of 32 elements, up to 65536, not " +
                        std::to_string(block));
}

std::size_t BlockTopK::capacity_of_whole(std::size_t count) const {
  return length(count / block_ * share(ratio_, block_) + share(ratio_, count % block_), count);
}

/// Most blocks are like the one before: what is well below its k largest is not looked at again
/// unless too little is left.
void BlockTopK::select(Picker& picker) const {
  constexpr std::int32_t kMargin = 1 << 21;  // less by an eighth to a quarter
  std::int32_t above = kBelowAll;
  for (std::size_t begin = 0; begin < picker.count(); begin += block_) {
    const std::size_t end = std::min(begin + block_, picker.count()),
                      k = share(ratio_, end - begin);
    const std::size_t first = picker.entries().size();
    picker.take(begin, end, above);
    if (picker.entries().size() - first < k) {
      picker.put_back(first);
      above = kBelowAll;
      picker.take_again(begin, end, above);
    }
    above = std::max(kBelowAll, picker.keep_largest(first, k, above) - kMargin);
  }
}

std::size_t BlockTopK::scratch(const cuda::Device& device, std::size_t count) const {
  return cuda::block_top_k_scratch(device, {ratio_, block_}, count);
}

void BlockTopK::select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
                       const cuda::Entries& out, std::byte* scratch) const {
  cuda::block_top_k(device, stream, input, {ratio_, block_}, out, scratch);
}

}  // namespace ronde
