#include "methods/dgc.h"

#include <algorithm>
#include <cmath>

#include "collective/compressed.h"
#include "compress/top_k.h"
#include "methods/draws.h"

namespace ronde {
namespace {

constexpr double kFirstRatio = 0.25;  // of a warm-up

}  // namespace

double sum_of_squares(std::span<const float> values) {
  const auto square = [&](std::size_t i) {
    return static_cast<double>(values[i]) * static_cast<double>(values[i]);
  };
  constexpr std::size_t kLanes = 8, kRun = 128;
  const std::size_t count = values.size();
  double sum = 0;
  if (count < kLanes) {
    for (std::size_t i = 0; i < count; ++i) sum += square(i);
    return sum;
  }
  if (count > kRun) {
    const std::size_t half = count / 2 - count / 2 % kLanes;
    return sum_of_squares(values.first(half)) + sum_of_squares(values.subspan(half));
  }
  double r[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) r[i] = square(i);
  std::size_t i = kLanes;
  for (; i < count - count % kLanes; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) r[lane] += square(i + lane);
  }
  sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  for (; i < count; ++i) sum += square(i);
  return sum;
}

double Dgc::ratio_at(std::int64_t step) const {
  const auto [ratio, momentum, clip, warmup_steps] = settings_;
  if (step >= warmup_steps || ratio >= kFirstRatio) return ratio;
  const double part = static_cast<double>(step) / static_cast<double>(warmup_steps);
  return kFirstRatio * std::pow(ratio / kFirstRatio, part);
}

Method::Held Dgc::enter(const Communicator&, std::span<const Parameters> buckets) {
  return {accumulated_->use(buckets), velocity_->use(buckets)};
}

std::string Dgc::position(const Communicator&, std::span<const Parameters> buckets) const {
  if (settings_.warmup_steps == 0) return {};
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const auto& bucket : buckets) {
    const auto step = next(bucket);
    if (step < settings_.warmup_steps) text += ", step " + std::to_string(step) + " of a warm-up";
  }
  return text;
}

Task<> Dgc::reduce(Ranks& ranks, std::vector<Bucket> buckets) {
  for (auto& bucket : buckets) bucket = scaled(ranks, bucket);
  const double scale = clipping(ranks, buckets);
  const auto held = ranks.operation.held();
  for (const auto& bucket : buckets) {
    co_await reduce_bucket(ranks, bucket, scale);
    ranks.operation.release(held);
  }
}

Task<> Dgc::reduce_bucket(Ranks& ranks, Bucket bucket, double scale) {
  const auto velocity = velocity_->of(ranks, bucket, true);
  const auto accumulated = accumulated_->of(ranks, bucket, true);
  const auto u = velocity.values, v = accumulated.values;
  for (auto& value : u) value *= static_cast<float>(settings_.momentum);
  std::size_t offset = 0;
  for (auto& array : bucket.arrays) {
    const std::span<float> part(u.data() + offset, array.input.size());
    const auto factor = static_cast<float>(scale);
    for (std::size_t i = 0; i < part.size(); ++i)
      part[i] += scale == 1.0 ? array.input[i] : array.input[i] * factor;
    array.input = part;
    offset += part.size();
  }
  const auto step = begin(bucket);
  // What is sent of v + u leaves 0 behind in v.
  const Compression compression{.compressor = std::make_shared<TopK>(ratio_at(step)),
                                .residual = v,
                                .key = key_of("0", static_cast<std::uint64_t>(step), bucket.name()),
                                .per_rank = true};
  const auto pieces = bucket.pieces();
  co_await allreduce_compressed(ranks.lane(), ranks.operation, pieces, bucket.reduction,
                                compression);
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (v[i] == 0) u[i] = 0;
  }
}

double Dgc::clipping(const Ranks& ranks, std::span<const Bucket> buckets) const {
  if (!settings_.clip) return 1.0;
  double sum = 0;
  for (const auto& bucket : buckets) {
    for (const auto& array : bucket.arrays) sum += sum_of_squares(array.input);
  }
  const double norm = std::pow(sum, 0.5);
  const double limit = *settings_.clip / std::pow(static_cast<double>(ranks.size()), 0.5);
  return norm != 0 ? std::min(1.0, limit / norm) : 1.0;
}

Steps Dgc::steps() const {
  const std::lock_guard lock(mutex_);
  return steps_;
}

void Dgc::load(Steps steps) {
  const std::lock_guard lock(mutex_);
  steps_ = std::move(steps);
}

std::int64_t Dgc::next(const Parameters& bucket) const {
  std::int64_t last = -1;
  for (const auto* parameter : bucket) {
    const auto known = steps_.find(parameter->name);
    if (known != steps_.end()) last = std::max(last, known->second);
  }
  return last + 1;
}

std::int64_t Dgc::begin(const Bucket& bucket) {
  const std::lock_guard lock(mutex_);
  Parameters parameters;
  for (const auto& array : bucket.arrays) parameters.push_back(array.parameter);
  const auto step = next(parameters);
  for (const auto* parameter : parameters) steps_[parameter->name] = step;
  return step;
}

}  // namespace ronde
