#include "methods/integer_sums.h"

#include "methods/draws.h"
#include "methods/integer_coding.h"

namespace ronde {
namespace {

std::unique_ptr<IntegerCoding> coding_of(Ranks& ranks, const SharedScale& scale,
                                         const Device& where) {
  if (where.is_gpu()) return std::make_unique<GpuIntegers>(scale, ranks.queue(where));
  return std::make_unique<HostIntegers>(scale);
}

}  // namespace

Method::Held IntegerSums::enter(const Communicator& set, std::span<const Parameters>) {
  if (set.local_size() != set.size()) scale_->integer(set.size());
  return {};
}

Task<> IntegerSums::reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                           std::uint64_t step) {
  const auto residuals = bucket.split(residual);
  if (ranks.on_one_machine()) return ranks.allreduce(with_residuals(ranks, bucket, residuals));
  const Bucket contribution = scaled(ranks, bucket);
  if (scale_->integer(ranks.size()) == DType::int8)
    return sum<std::int8_t>(ranks, contribution, residuals, step);
  return sum<std::int16_t>(ranks, contribution, residuals, step);
}

template <class Integer>
Task<> IntegerSums::sum(Ranks& ranks, Bucket bucket, std::vector<std::span<float>> residuals,
                        std::uint64_t step) {
  const auto& where = bucket.device;
  const auto coding = coding_of(ranks, *scale_, where);
  std::vector<std::span<float>> maxima;
  std::vector<std::span<Integer>> integers;
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& input = bucket.arrays[i].input;
    maxima.push_back(ranks.room<float>(where, scale_->blocks(input.size())));
    coding->maxima(input, residuals[i], maxima[i]);
  }
  // Magnitudes are in the order of their bits, with NaN behind all others.
  co_await ranks.combine(maxima, where, DType::int32, ReduceOp::max);
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& [parameter, input, output] = bucket.arrays[i];
    // Where ranks rounded alike, what they leave out would add up.
    const auto own = std::to_string(ranks.rank()) + " " + std::to_string(i) + " " + parameter->name;
    integers.push_back(ranks.room<Integer>(where, input.size()));
    coding->quantise({input, residuals[i], maxima[i], key_of(seed_, step, own)}, integers[i]);
  }
  constexpr DType kType = sizeof(Integer) == 1 ? DType::int8 : DType::int16;
  co_await ranks.combine(integers, where, kType, ReduceOp::sum);
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i)
    coding->dequantise({integers[i], maxima[i], bucket.factor()}, bucket.arrays[i].output);
}

}  // namespace ronde
