#include "methods/error_feedback.h"

namespace ronde {

Method::Held ErrorFeedback::enter(const Communicator& set, std::span<const Parameters> buckets) {
  auto held = codec_->enter(set, buckets);
  held.push_back(residuals_->use(buckets));
  return held;
}

std::string ErrorFeedback::position(const Communicator&,
                                    std::span<const Parameters> buckets) const {
  if (!codec_->draws_alike()) return {};
  const std::lock_guard lock(mutex_);
  std::string text = ", draw ";
  for (const auto& bucket : buckets)
    text += (&bucket == buckets.data() ? "" : ", ") + std::to_string(next(bucket.front()->name));
  return text;
}

Task<> ErrorFeedback::reduce(Ranks& ranks, std::vector<Bucket> buckets) {
  const auto held = ranks.operation.held();
  for (const auto& bucket : buckets) {
    const auto residual = residuals_->of(ranks, bucket, codec_->per_rank());
    ranks.operation.keep(residual.vector);
    const auto step = begin(bucket);
    const Bucket contribution = scaled(ranks, bucket, residual.added);
    co_await codec_->reduce(ranks, contribution, residual.values, step);
    ranks.operation.release(held);
  }
}

Steps ErrorFeedback::steps() const {
  const std::lock_guard lock(mutex_);
  return steps_;
}

void ErrorFeedback::load(Steps steps) {
  const std::lock_guard lock(mutex_);
  steps_ = std::move(steps);
}

/// The number of the next call.
std::int64_t ErrorFeedback::next(const std::string& name) const {
  const auto known = steps_.find(name);
  return known == steps_.end() ? 0 : known->second + 1;
}

std::uint64_t ErrorFeedback::begin(const Bucket& bucket) {
  const std::lock_guard lock(mutex_);
  const auto step = next(bucket.name());
  steps_[bucket.name()] = step;
  return static_cast<std::uint64_t>(step);
}

}  // namespace ronde
