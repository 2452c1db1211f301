// Error feedback (Seide et al. 2014; Karimireddy et al. 2019): what payloads leave out of a
// parameter is added to its next gradient.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "methods/residuals.h"

namespace ronde {

/// Of each bucket the number of its latest call, by the name of its first array.
using Steps = std::map<std::string, std::int64_t>;

class ErrorFeedback final : public Method {
 public:
  ErrorFeedback(std::shared_ptr<Codec> codec, std::shared_ptr<Residuals> residuals)
      : codec_(std::move(codec)), residuals_(std::move(residuals)) {}

  Held enter(const Communicator& set, std::span<const Parameters> buckets) override;
  bool feeds_back(const Communicator&, std::span<const Parameters>) const override { return true; }
  std::string position(const Communicator& set, std::span<const Parameters> buckets) const override;
  bool takes_gpus(const Ranks& ranks) const override { return codec_->takes_gpus(ranks); }
  Task<bool> reduces_on(Ranks& ranks, std::optional<Device> gpu) override {
    return codec_->reduces_on(ranks, gpu);
  }
  Task<> reduce(Ranks& ranks, std::vector<Bucket> buckets) override;

  Steps steps() const;
  void load(Steps steps);

 private:
  std::int64_t next(const std::string& name) const;
  std::uint64_t begin(const Bucket& bucket);

  const std::shared_ptr<Codec> codec_;
  const std::shared_ptr<Residuals> residuals_;
  mutable std::mutex mutex_;
  Steps steps_;
};

}  // namespace ronde
