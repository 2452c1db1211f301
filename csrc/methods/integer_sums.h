// Sums of integers: all ranks round to multiples of one step, so that nothing has to be decoded on
// the way.
//
//   step = max / L, for each block; max: the greatest |gradient + residual| of all ranks, L:
//   2^(bits-1) - 1
//   q = round((gradient + residual) / step)
//   sum = step * (sum of q over the ranks)
//
// All of it happens where the bucket is, on a GPU too. Maxima and integers are reduced by exact
// allreduces, as in SwitchML (Sapio et al. 2021) and IntSGD (Mishchenko et al. 2022), whose steps
// are found in other ways. compress/shared_scale.h has the arithmetic.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/shared_scale.h"
#include "methods/method.h"

namespace ronde {

class IntegerSums final : public Codec {
 public:
  IntegerSums(std::shared_ptr<const SharedScale> scale, std::string seed)
      : Codec(true), scale_(std::move(scale)), seed_(std::move(seed)) {}

  Held enter(const Communicator& set, std::span<const Parameters> buckets) override;
  bool takes_gpus(const Ranks&) const override { return true; }
  using Codec::reduce;
  Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                std::uint64_t step) override;

 private:
  template <class Integer>
  Task<> sum(Ranks& ranks, Bucket bucket, std::vector<std::span<float>> residuals,
             std::uint64_t step);

  const std::shared_ptr<const SharedScale> scale_;
  const std::string seed_;
};

}  // namespace ronde
