// Allreduce of what a compressor makes of the values: a scatter-reduce and an allgather of payloads
// (as in Alistarh et al. 2017; Seide et al. 2014), so that a value is compressed twice whatever the
// number of ranks.
//
//   1  each rank owns a slice of the vector, and gets the payloads of its slice from all others
//   2  the owner decodes and adds them in the order of the ranks, its own values exactly
//   3  the owner compresses the sum, and all ranks, itself too, decode that payload: all get the
//      same bits
//
// Sparse compressors send sums whole (Compressor::for_sums), so that nothing is selected from a
// selection; the owner's own values must then be selected too, as they would fill the sum up. This
// is the split sparse allreduce of SparCML (Renggli et al. 2019). Its other one is here too: sparse
// payloads of the whole vector are *gathered* by all ranks, each of which adds them up for itself,
// in the order of the ranks. It is as if all ranks owned one slice, and no sum had to be sent.
//
// Slices go in segments, several of which are under way: while one travels, others are compressed
// and added. Between two looks at what has arrived a rank does one piece of work, what others wait
// for first: it adds up a segment of its slice, else compresses a part for another rank, else
// stores a sum.
//
// The residual of a rank has an entry for each element. It is what this rank's payloads have left
// out; where this rank owns the element and compresses the sum alone, what the payloads of the sum
// have. All of it is in units of a contribution: what residuals would still add to the result is
// their sum times `factor`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collective/work.h"
#include "compress/compressor.h"
#include "core/bytes.h"
#include "schedule/cost.h"
#include "transport/transport.h"

namespace ronde {

/// How an allreduce is compressed.
struct Compression {
  std::shared_ptr<const Compressor> compressor;
  std::span<float> residual;  // of the whole vector, or empty: what is left out is lost then
  std::uint64_t key = 0;      // of random numbers, the same on all ranks
  bool per_rank = false;      // each rank's own values are compressed, on one machine too
  int rank = 0;               // in the set: each rank of a machine draws numbers of its own
  bool gathers = false;       // payloads, which are sparse: see better_gathered()
};

/// Whether sparse payloads of so many bytes are better gathered by all ranks than reduced by
/// slices: with m seconds for the messages of a step, m + (P-1) b rather than 2 m + 2 (P-1)/P b, b
/// being the seconds of a payload on the link (the costs of SparCML, Renggli et al. 2019). The
/// latter holds where all ranks select the same entries; the less they do, the longer are the sums
/// of slices, up to P payloads. So gathering is chosen only where it is faster whatever they
/// select.
bool better_gathered(std::size_t payload, int ranks, const Link& link);

class CompressedAllreduce final : public Work {
 public:
  /// The sum of all ranks' `values`, times `factor`, in `result`, which may be the same memory.
  /// `tag` and the one behind it are this call's.
  CompressedAllreduce(Transport& transport, Compression compression, std::span<const float> values,
                      std::span<float> result, float factor, int tag, std::string what);

  Progress progress() override;

 private:
  struct Span {
    std::size_t offset, count;
  };
  /// A payload on its way to or from a rank.
  struct Message {
    std::byte* memory = nullptr;
    std::optional<Request> request;
    std::size_t length = 0;
    bool arrived = false;
  };
  /// What belongs to one segment of all slices, while it is under way.
  struct Segment {
    std::vector<Message> parts_out, parts_in;  // to and from each rank: of its and of our slice
    std::vector<Message> sums;                 // from each owner, this rank too
    std::vector<std::optional<Request>> sum_sends;
    int missing = 0;  // sums that have not been stored
  };

  /// What comes from a rank, and the first segment of which it has not.
  struct Lane {
    std::vector<Message> Segment::* messages;
    int peer;
    std::size_t awaited = 0;
  };

  void cut_segments();
  void make_room();
  Span slice(int rank) const;
  Span segment(int rank, std::size_t number) const;
  int first_distance() const { return sums_ ? 0 : 1; }
  Segment& under_way(std::size_t number) { return window_[number % window_.size()]; }

  bool open_segment();
  bool take_arrivals();
  bool reduce_next();
  bool compress_next();
  bool store_next();
  bool close_segment();

  void add_parts(const Segment& now, const Span& own, float* total) const;
  void send_sum(Segment& now, const Span& own);
  std::size_t encode_sum(const Span& own, std::byte* payload);
  std::span<float> residual(const Span& span) const;
  bool ended(std::optional<Request>& request) const;
  void receive(int peer, int tag, std::size_t count, Message& message);
  std::size_t encode(const float* values, const Span& span, std::span<float> left,
                     std::byte* payload) const;
  void decode(const Message& message, const Span& span, float* out, Store store, int peer) const;

  Transport& transport_;
  Compression compression_;
  const std::span<const float> values_;
  const std::span<float> result_;
  const float factor_;
  const int tag_;
  const std::string what_;
  const std::uint64_t own_key_;
  const Compressor* sums_ = nullptr;  // what sums are encoded by, if not like values
  std::size_t segment_count_ = 0;     // of the longest slice
  std::size_t segment_length_ = 0;
  std::vector<Segment> window_;
  Bytes payloads_;  // all that are under way
  std::vector<Lane> lanes_;
  std::vector<float> total_;             // of the segment that is being reduced
  std::size_t opened_ = 0, closed_ = 0;  // segments
  std::size_t reducing_ = 0;
  std::size_t compressing_ = 0;  // the segment whose parts are being compressed,
  int distance_ = 1;             // and for which rank, counted from this one
};

}  // namespace ronde
