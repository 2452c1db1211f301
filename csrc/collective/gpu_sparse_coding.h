// The arithmetic of a compressed allreduce on a GPU, by sparse codes.
//
//   before all steps   what is sent is selected of the whole vector, and the payloads of all
//                      segments are written; their lengths are copied to the host
//   encode             a segment's payload is copied to the host, as soon as its length is known
//   encode_sum         on the host, where all parts are
//   store_sum          the parts are copied to the device, and added there
//   decode             the payload of a sum is copied to the device, where that of this rank's part
//                      was, and decoded into the result
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "collective/coding.h"
#include "collective/findings.h"
#include "cuda/scratch.h"
#include "cuda/sparse.h"
#include "cuda/steps.h"

namespace ronde {

class GpuSparseCoding final : public Coding {
 public:
  /// The compressor selects on a GPU. All memory of the summand is the device's, and may be touched
  /// by what is enqueued on the stream.
  GpuSparseCoding(Summand summand, const cuda::Queue& queue);

  std::byte* begin(const Cut& cut) override;
  Step encode(const Range& segment, Payload& payload) override;
  Step encode_sum(const Range& segment, std::span<const Payload> parts, Payload& sum) override;
  Step store_sum(const Range& segment, std::span<const Payload> parts) override;
  Step decode(const Range& segment, const Payload& sum, int owner) override;
  Step end() override;
  bool passed(Step step) override;

 private:
  /// That will be copied when the lengths are known.
  struct Waiting {
    std::size_t number;  // of the segment
    Payload* payload;
  };

  void cut_segments();
  void take_memory();
  void select();
  Step copy_here(const Waiting& what);
  void read(const Payload& payload, std::byte* there, const Range& segment, Store store, int from);

  const cuda::Queue queue_;
  cuda::Steps steps_;
  Cut cut_;
  std::vector<cuda::Segment> segments_;
  std::map<std::size_t, std::size_t> numbers_;  // of the segments, by where they begin
  cuda::Scratch messages_;                      // pinned: and the lengths
  cuda::Scratch scratch_;                       // on the device: all that follows
  cuda::Entries entries_{};
  std::byte* selecting_ = nullptr;  // scratch of the selection
  std::byte* reading_ = nullptr;    // and of the decoding
  std::byte* payloads_ = nullptr;   // of all segments, each with room for any
  std::byte* part_ = nullptr;       // of another rank
  cuda::u64* lengths_ = nullptr;
  const cuda::u64* lengths_here_ = nullptr;
  Step selected_ = 0;
  bool lengths_known_ = false;
  std::deque<Waiting> waiting_;
  std::vector<float> total_;  // of a segment, on the host
  std::optional<Findings> findings_;
  Step end_ = 0;
};

}  // namespace ronde
