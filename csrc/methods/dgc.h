// Deep gradient compression (Lin et al. 2018), for each rank by itself. For its gradient g, with
// its velocity u and its accumulated values v:
//
//   u = momentum u + g;  v = v + u
//   the largest `ratio` of v are sent, and set to 0 in v and in u (factor masking)
//
// The gradients of a call are first scaled down to a Euclidean norm of clip / sqrt(ranks), where
// theirs is larger (local clipping). In a warm-up the ratio falls from 0.25, by equal factors.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "methods/error_feedback.h"

namespace ronde {

class Dgc final : public Method {
 public:
  struct Settings {
    double ratio = 0.01;
    double momentum = 0.9;
    std::optional<double> clip;
    std::int64_t warmup_steps = 0;
  };

  Dgc(const Settings& settings, std::shared_ptr<Residuals> accumulated,
      std::shared_ptr<Residuals> velocity)
      : settings_(settings), accumulated_(std::move(accumulated)), velocity_(std::move(velocity)) {}

  /// Of the values of a bucket, at a step counted from 0.
  double ratio_at(std::int64_t step) const;

  Held enter(const Communicator& set, std::span<const Parameters> buckets) override;
  bool feeds_back(const Communicator&, std::span<const Parameters>) const override { return true; }
  std::string position(const Communicator& set, std::span<const Parameters> buckets) const override;
  Task<> reduce(Ranks& ranks, std::vector<Bucket> buckets) override;

  Steps steps() const;  // of each parameter
  void load(Steps steps);

 private:
  double clipping(const Ranks& ranks, std::span<const Bucket> buckets) const;
  Task<> reduce_bucket(Ranks& ranks, Bucket bucket, double scale);
  std::int64_t next(const Parameters& bucket) const;
  std::int64_t begin(const Bucket& bucket);

  const Settings settings_;
  const std::shared_ptr<Residuals> accumulated_;
  const std::shared_ptr<Residuals> velocity_;
  mutable std::mutex mutex_;
  Steps steps_;
};

/// The sum of the squares as NumPy forms it in float64: pairwise, in runs of at most 128, each in
/// eight lanes.
double sum_of_squares(std::span<const float> values);

}  // namespace ronde
