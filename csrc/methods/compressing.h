// A compressor by itself (compress/compressor.h): what crosses machines is compressed, and what the
// payloads leave out goes into the residual, if there is one. That happens where the values are, on
// a GPU too.
#pragma once

#include <memory>
#include <string>

#include "compress/compressor.h"
#include "methods/method.h"

namespace ronde {

class Compressing final : public Codec {
 public:
  Compressing(std::shared_ptr<const Compressor> compressor, std::string seed)
      : Codec(false), compressor_(std::move(compressor)), seed_(std::move(seed)) {}

  bool draws_alike() const override { return compressor_->summable_offset().has_value(); }
  bool takes_gpus(const Ranks& ranks) const override;
  Task<bool> reduces_on(Ranks& ranks, std::optional<Device> gpu) override;
  using Codec::reduce;
  Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                std::uint64_t step) override;

 private:
  const std::shared_ptr<const Compressor> compressor_;
  const std::string seed_;
};

}  // namespace ronde
