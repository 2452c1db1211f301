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
// and added. Between two looks at what has arrived a rank begins one piece of work, what others
// wait for first: it adds up a segment of its slice, else compresses a part for another rank, else
// stores a sum. Who does this work, and where, is a Coding (coding.h): here are the messages. What
// is to be sent waits in a queue until the coding has made it; on the host that is at once.
//
// The residual of a rank has an entry for each element. It is what this rank's payloads have left
// out; where this rank owns the element and compresses the sum alone, what the payloads of the sum
// have. All of it is in units of a contribution: what residuals would still add to the result is
// their sum times `factor`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "collective/coding.h"
#include "collective/work.h"
#include "schedule/cost.h"
#include "transport/transport.h"

namespace ronde {

/// Whether sparse payloads of so many bytes are better gathered by all ranks than reduced by
/// slices: with m seconds for the messages of a step, m + (P-1) b rather than 2 m + 2 (P-1)/P b, b
/// being the seconds of a payload on the link (the costs of SparCML, Renggli et al. 2019). The
/// latter holds where all ranks select the same entries; the less they do, the longer are the sums
/// of slices, up to P payloads. So gathering is chosen only where it is faster whatever they
/// select.
bool better_gathered(std::size_t payload, int ranks, const Link& link);

class CompressedAllreduce final : public Work {
 public:
  /// The sum of `count` values of all ranks. `tag` and the one behind it are this call's.
  CompressedAllreduce(Transport& transport, const Compression& compression, std::size_t count,
                      std::unique_ptr<Coding> coding, int tag);

  Progress progress() override;

 private:
  /// A payload on its way to or from a rank.
  struct Message {
    Coding::Payload payload;
    Coding::Step made = 0;  // where this rank makes it
    std::optional<Request> request;
    bool arrived = false;
  };
  /// What belongs to one segment of all slices, while it is under way.
  struct Segment {
    std::vector<Message> parts_out, parts_in;  // to and from each rank: of its and of our slice
    std::vector<Message> sums;                 // from each owner, this rank too
    std::vector<std::optional<Request>> sum_sends;
    int missing = 0;        // sums that have not been stored
    int unsent = 0;         // messages in the queue
    Coding::Step last = 0;  // that was begun
  };
  /// A message that is sent when it has been made.
  struct Unsent {
    int peer, tag;
    Segment* segment;
    Message* message;
    std::optional<Request>* request;
  };

  /// What comes from a rank, and the first segment of which it has not.
  struct Lane {
    std::vector<Message> Segment::* messages;
    int peer;
    std::size_t awaited = 0;
  };

  void cut_segments();
  void make_room();
  Range slice(int rank) const;
  Range segment(int rank, std::size_t number) const;
  int first_distance() const { return sums_ ? 0 : 1; }
  Segment& under_way(std::size_t number) { return window_[number % window_.size()]; }

  bool open_segment();
  bool take_arrivals();
  bool reduce_next();
  bool compress_next();
  bool store_next();
  bool send_next();
  bool close_segment();

  void reduce(Segment& now, const Range& own);
  void begun(Segment& now, Coding::Step step) { now.last = std::max(now.last, step); }
  void enqueue(Segment& now, Message& message, int peer, int tag, std::optional<Request>& request);
  bool ended(std::optional<Request>& request) const;
  void receive(int peer, int tag, std::size_t count, Message& message);

  Transport& transport_;
  const std::shared_ptr<const Compressor> compressor_;
  const bool gathers_;
  const bool sums_;  // have a code of their own, and are of what all ranks have encoded
  const std::size_t count_;
  const std::unique_ptr<Coding> coding_;
  const int tag_;
  std::size_t segment_count_ = 0;   // of the longest slice
  std::size_t segment_length_ = 0;  // in elements
  std::vector<Segment> window_;
  std::vector<Lane> lanes_;
  std::deque<Unsent> unsent_;
  std::vector<Coding::Payload> parts_;   // of the segment that is being reduced
  std::size_t opened_ = 0, closed_ = 0;  // segments
  std::size_t reducing_ = 0;
  std::size_t compressing_ = 0;  // the segment whose parts are being compressed,
  int distance_ = 1;             // and for which rank, counted from this one
  std::optional<Coding::Step> end_;
};

}  // namespace ronde
