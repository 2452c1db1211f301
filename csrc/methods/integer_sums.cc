#include "methods/integer_sums.h"

#include <algorithm>

#include "methods/draws.h"

namespace ronde {
namespace {

/// The parts of a vector, which may be empty, that belong to the arrays.
std::vector<std::span<float>> split(std::span<float> vector, const Bucket& bucket) {
  std::vector<std::span<float>> parts;
  std::size_t offset = 0;
  for (const auto& array : bucket.arrays) {
    parts.push_back(vector.empty() ? vector : vector.subspan(offset, array.input.size()));
    offset += array.input.size();
  }
  return parts;
}

/// Within one machine, exactly: the residual is sent, and nothing is left.
Task<> reduce_with(Ranks& ranks, Bucket bucket, std::span<float> residual) {
  std::vector<std::vector<float>> waiting;
  for (const auto& left : split(residual, bucket)) {
    const bool any = std::any_of(left.begin(), left.end(), [](float x) { return x != 0; });
    waiting.emplace_back(left.begin(), any ? left.end() : left.begin());
  }
  const Bucket contribution = scaled(ranks, bucket, waiting);
  co_await ranks.allreduce(contribution.pieces(), contribution.reduction);
  std::ranges::fill(residual, 0.0f);
}

}  // namespace

Method::Held IntegerSums::enter(const Communicator& set, std::span<const Parameters>) {
  if (set.local_size() != set.size()) scale_->integer(set.size());
  return {};
}

Task<> IntegerSums::reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                           std::uint64_t step) {
  if (ranks.on_one_machine()) return reduce_with(ranks, std::move(bucket), residual);
  const Bucket contribution = scaled(ranks, bucket);
  if (scale_->integer(ranks.size()) == DType::int8)
    return sum<std::int8_t>(ranks, contribution, residual, step);
  return sum<std::int16_t>(ranks, contribution, residual, step);
}

template <class Integer>
Task<> IntegerSums::sum(Ranks& ranks, Bucket bucket, std::span<float> residual,
                        std::uint64_t step) {
  const auto lefts = split(residual, bucket);
  std::vector<std::span<float>> maxima;
  std::vector<std::span<Integer>> integers;
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& input = bucket.arrays[i].input;
    maxima.push_back(ranks.room<float>(scale_->blocks(input.size())));
    scale_->maxima(input, lefts[i], maxima[i]);
  }
  co_await ranks.combine(maxima, DType::float32, ReduceOp::max);
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& [parameter, input, output] = bucket.arrays[i];
    // Where ranks rounded alike, what they leave out would add up.
    const auto own = std::to_string(ranks.rank()) + " " + std::to_string(i) + " " + parameter->name;
    integers.push_back(ranks.room<Integer>(input.size()));
    scale_->quantise(input, maxima[i], lefts[i], key_of(seed_, step, own), integers[i]);
  }
  constexpr DType kType = sizeof(Integer) == 1 ? DType::int8 : DType::int16;
  co_await ranks.combine(integers, kType, ReduceOp::sum);
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const std::span<const Integer> sums = integers[i];
    scale_->dequantise(sums, maxima[i], bucket.factor(), bucket.arrays[i].output);
  }
}

}  // namespace ronde
