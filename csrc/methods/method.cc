#include "methods/method.h"

#include <string_view>

namespace ronde {

std::size_t Bucket::elements() const {
  std::size_t elements = 0;
  for (const auto& array : arrays) elements += array.input.size();
  return elements;
}

std::vector<Piece> Bucket::pieces() const {
  std::vector<Piece> pieces;
  for (const auto& [parameter, input, output] : arrays) {
    const auto* const data = reinterpret_cast<const std::byte*>(input.data());
    pieces.push_back({{data, input.size_bytes()}, buffer_of(output)});
  }
  return pieces;
}

Task<> Ranks::allreduce(std::vector<Piece> pieces, Reduction reduction) {
  auto& route = routes.choose(Collective::allreduce, std::string_view());
  co_await route.allreduce(operation, pieces, reduction, std::string_view());
}

Bucket scaled(Ranks& ranks, const Bucket& bucket, std::span<const std::vector<float>> added) {
  Bucket result = bucket;
  const auto factor = static_cast<float>(std::exchange(result.reduction.prescale, 1.0));
  for (std::size_t i = 0; i < result.arrays.size(); ++i) {
    auto& input = result.arrays[i].input;
    const std::span<const float> more = added.empty() ? std::span<const float>() : added[i];
    if (bucket.reduction.prescale == 1.0 && more.empty()) continue;
    const auto values = ranks.room<float>(input.size());
    for (std::size_t k = 0; k < values.size(); ++k) values[k] = input[k] * factor;
    for (std::size_t k = 0; k < more.size(); ++k) values[k] += more[k];
    input = values;
  }
  return result;
}

/// Calls may come to this in another order on each rank. So ranks that draw alike agree on the
/// step.
Task<> Codec::reduce(Ranks& ranks, std::vector<Bucket> buckets) {
  const auto held = ranks.operation.held();
  std::uint64_t step = steps.fetch_add(buckets.size());
  if (draws_alike() && !ranks.on_one_machine()) {
    const std::vector latest{ranks.room<std::uint64_t>(1)};
    latest[0][0] = step;
    co_await ranks.combine(latest, DType::uint64, ReduceOp::max);
    step = latest[0][0];
    const auto next = step + buckets.size();
    for (auto known = steps.load(); known < next && !steps.compare_exchange_weak(known, next);) {
    }
  }
  for (const auto& bucket : buckets) {
    co_await reduce(ranks, bucket, std::span<float>(), step++);
    ranks.operation.release(held);
  }
}

}  // namespace ronde
