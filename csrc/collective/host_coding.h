// The arithmetic of a compressed allreduce on the host, where a step is done when it is begun.
#pragma once

#include <vector>

#include "collective/coding.h"
#include "core/bytes.h"

namespace ronde {

class HostCoding final : public Coding {
 public:
  explicit HostCoding(Summand summand) : Coding(std::move(summand)) {}

  std::byte* begin(const Cut& cut) override;
  Step encode(const Range& segment, Payload& payload) override;
  Step encode_sum(const Range& segment, std::span<const Payload> parts, Payload& sum) override;
  Step store_sum(const Range& segment, std::span<const Payload> parts) override;
  Step decode(const Range& segment, const Payload& sum, int owner) override;
  Step end() override { return 0; }
  bool passed(Step) override { return true; }

 private:
  void add(const Range& segment, std::span<const Payload> parts, float* total) const;
  void decode(const Payload& payload, std::span<float> out, Store store, int from) const;

  Bytes messages_;
  std::vector<float> total_;          // of the segment that is being reduced
  const Compressor* sums_ = nullptr;  // what sums are encoded by, if not like values
};

}  // namespace ronde
