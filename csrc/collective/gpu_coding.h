// The arithmetic of a compressed allreduce on a GPU, by codes of fixed length.
//
// Payloads cross to the host and back, values never. As payloads of a vector that is cut at the
// grain can be joined, there is one of the whole vector on the device, in which everything has its
// place:
//
//   before all steps   the slices of the other ranks are encoded, by two launches at most
//   encode             a segment's payload is copied to the host
//   encode_sum         the parts are copied to the device, added and encoded in one pass, and the
//                      payload of the sum is copied to the host
//   decode             the payload of a sum is copied to the device, where that of this rank's
//                      part was
//   after all steps    the slices are decoded into the result, by a launch for each
//
// All is enqueued on one stream. Nobody waits for it but by asking whether a step has passed.
#pragma once

#include <memory>
#include <optional>

#include "collective/coding.h"
#include "collective/findings.h"
#include "cuda/codec.h"
#include "cuda/scratch.h"
#include "cuda/steps.h"

namespace ronde {

class GpuCoding final : public Coding {
 public:
  /// The compressor has a block code. All memory of the summand is the device's, and may be touched
  /// by what is enqueued on the stream.
  GpuCoding(Summand summand, const cuda::Queue& queue);

  std::byte* begin(const Cut& cut) override;
  Step encode(const Range& segment, Payload& payload) override;
  Step encode_sum(const Range& segment, std::span<const Payload> parts, Payload& sum) override;
  Step store_sum(const Range& segment, std::span<const Payload> parts) override;
  Step decode(const Range& segment, const Payload& sum, int owner) override;
  Step end() override;
  bool passed(Step step) override;

 private:
  const Range& own() const { return cut_.slices[summand_.rank]; }
  /// Where the payload of a part of the vector is in that of the whole.
  std::byte* place_of(const Range& range) const;
  std::size_t part_bytes() const;
  unsigned* flag_of(std::size_t rank) const;

  void take_memory();
  void encode_values(const Range& range);
  void copy_there(const Range& segment, const Payload& payload, int from, std::byte* to);
  void copy_here(const Range& segment, Payload& payload);
  Step add_finding();

  const cuda::Queue queue_;
  const cuda::Codec codec_;
  cuda::Steps steps_;
  Cut cut_;
  cuda::Scratch messages_;            // pinned
  cuda::Scratch scratch_;             // on the device: all that follows
  std::byte* payloads_ = nullptr;     // of the whole vector
  std::byte* parts_ = nullptr;        // of a segment, from each rank
  float* total_ = nullptr;            // of a segment
  std::optional<Findings> findings_;  // bad scales, of each sum and of the end
  Step end_ = 0;
};

}  // namespace ronde
