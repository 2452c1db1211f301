#include "collective/compressed_allreduce.h"

#include <algorithm>
#include <utility>

#include "collective/settings.h"
#include "core/round.h"

namespace ronde {
namespace {

// Segments under way at once.
constexpr std::size_t kWindow = 4;
// The values of a segment: enough for a message to be worth its latency, and few enough for the sum
// of one to stay in cache.
constexpr std::size_t kFewest = 16 << 10, kMost = 256 << 10;
// For all payloads under way: those of sparse compressors need far more room than they mostly fill.
// Segments get shorter to keep to it, but no shorter than kFewest.
constexpr std::size_t kRoom = 64 << 20;
constexpr std::size_t kPlaces = 3;  // for payloads of a segment, to and from each rank

}  // namespace

bool better_gathered(std::size_t payload, int ranks, const Link& link) {
  const double peers = ranks - 1;
  const double step = link.alpha + std::max(peers - 1, 0.0) * link.overhead;
  const double sent = static_cast<double>(payload) * link.beta;
  return step + peers * sent <= 2 * step + 2 * peers / ranks * sent;
}

CompressedAllreduce::CompressedAllreduce(Transport& transport, const Compression& compression,
                                         std::size_t count, std::unique_ptr<Coding> coding, int tag)
    : transport_(transport),
      compressor_(compression.compressor),
      gathers_(compression.gathers),
      sums_(compressor_->for_sums() != nullptr),
      count_(count),
      coding_(std::move(coding)),
      tag_(tag),
      parts_(transport.size()),
      distance_(first_distance()) {
  cut_segments();
  make_room();
}

void CompressedAllreduce::cut_segments() {
  std::size_t longest = 0;
  for (int rank = 0; rank < transport_.size(); ++rank)
    longest = std::max(longest, slice(rank).count);
  const std::size_t in_payload =
      kBetweenMachines * kFewest / compressor_->capacity_of_whole(kFewest);
  const std::size_t room =
      kRoom / (kWindow * kPlaces * static_cast<std::size_t>(transport_.size()));
  const std::size_t in_room = room * kFewest / compressor_->capacity(kFewest);
  const std::size_t wanted = std::clamp(std::min(in_payload, in_room), kFewest, kMost);
  segment_length_ = rounded(wanted, compressor_->grain());
  segment_count_ = (longest + segment_length_ - 1) / segment_length_;
}

void CompressedAllreduce::make_room() {
  window_.resize(std::min(kWindow, segment_count_));
  Coding::Cut cut{.slices = {}, .longest = 0, .messages = 0};
  for (int rank = 0; rank < transport_.size(); ++rank) {
    cut.slices.push_back(slice(rank));
    cut.longest = std::max(cut.longest, segment(rank, 0).count);
  }
  const std::size_t capacity = rounded(compressor_->capacity(cut.longest), kCacheLine);
  cut.messages = capacity * kPlaces * cut.slices.size() * window_.size();
  std::byte* place = coding_->begin(cut);
  for (auto& segment : window_) {
    for (auto* messages : {&segment.parts_out, &segment.parts_in, &segment.sums}) {
      messages->resize(transport_.size());
      for (auto& message : *messages)
        message.payload.memory = std::exchange(place, place + capacity);
    }
    segment.sum_sends.resize(transport_.size());
  }
  for (int peer = 0; peer < transport_.size(); ++peer) {
    if (peer == transport_.rank()) continue;
    lanes_.push_back({&Segment::parts_in, peer});
    lanes_.push_back({&Segment::sums, peer});
  }
}

Progress CompressedAllreduce::progress() {
  bool moved = open_segment();
  moved |= take_arrivals();
  moved |= reduce_next() || compress_next() || store_next();
  moved |= send_next();
  moved |= close_segment();
  if (closed_ < segment_count_) return moved ? Progress::moved : Progress::idle;
  if (!end_) end_ = coding_->end();
  return coding_->passed(*end_) ? Progress::done : Progress::idle;
}

/// Slices as even as possible, cut at the grain; or all of the vector for everybody.
Range CompressedAllreduce::slice(int rank) const {
  if (gathers_) return {.offset = 0, .count = count_};
  const std::size_t grain = compressor_->grain();
  const std::size_t grains = (count_ + grain - 1) / grain;
  const auto cut = [&](int place) {
    return std::min(grains * place / transport_.size() * grain, count_);
  };
  return {.offset = cut(rank), .count = cut(rank + 1) - cut(rank)};
}

/// Of the slice of a rank; maybe empty, where others' slices are longer.
Range CompressedAllreduce::segment(int rank, std::size_t number) const {
  const Range all = slice(rank);
  const std::size_t begin = std::min(number * segment_length_, all.count);
  return {.offset = all.offset + begin, .count = std::min(segment_length_, all.count - begin)};
}

/// Makes ready to receive all that belongs to the next segment, if there is room in the window.
bool CompressedAllreduce::open_segment() {
  if (opened_ == segment_count_ || opened_ == closed_ + window_.size()) return false;
  const std::size_t number = opened_++;
  auto& now = under_way(number);
  const std::size_t own = segment(transport_.rank(), number).count;
  now.missing = 0;
  for (int peer = 0; peer < transport_.size(); ++peer) {
    now.parts_in[peer].arrived = now.sums[peer].arrived = false;
    const auto count = gathers_ ? 0 : segment(peer, number).count;
    if (count) ++now.missing;
    if (peer == transport_.rank()) continue;
    if (own) receive(peer, tag_, own, now.parts_in[peer]);
    if (count) receive(peer, tag_ + 1, count, now.sums[peer]);
  }
  return true;
}

/// What has arrived. Messages of one lane come in their order, so only the first that is missing is
/// asked for: each answer of "not yet" costs a look at the network.
bool CompressedAllreduce::take_arrivals() {
  bool moved = false;
  for (auto& lane : lanes_) {
    for (; lane.awaited < opened_; ++lane.awaited) {
      auto& message = (under_way(lane.awaited).*lane.messages)[lane.peer];
      if (!message.request) continue;
      const auto length = transport_.test(*message.request);
      if (!length) break;
      message.request.reset();
      message.payload.length = *length;
      message.arrived = moved = true;
    }
  }
  return moved;
}

/// Adds what all ranks have sent of the next segment of our slice, and sends the sum, if others
/// need it. Segments keep their order, which is that of the messages.
bool CompressedAllreduce::reduce_next() {
  if (reducing_ == opened_) return false;
  auto& now = under_way(reducing_);
  const int rank = transport_.rank();
  const Range own = segment(rank, reducing_);
  if (own.count) {
    for (int peer = 0; peer < transport_.size(); ++peer) {
      if ((peer != rank || sums_) && !now.parts_in[peer].arrived) return false;
    }
    reduce(now, own);
  }
  ++reducing_;
  return true;
}

void CompressedAllreduce::reduce(Segment& now, const Range& own) {
  const int rank = transport_.rank(), size = transport_.size();
  for (int peer = 0; peer < size; ++peer) {
    parts_[peer] = now.parts_in[peer].payload;
    if (peer == rank && !sums_) parts_[peer].memory = nullptr;
  }
  if (gathers_) {
    return begun(now, coding_->store_sum(own, parts_));
  }
  auto& sum = now.sums[rank];
  sum.made = coding_->encode_sum(own, parts_, sum.payload);
  begun(now, sum.made);
  for (int distance = 0; distance < size; ++distance) {
    const int peer = (rank + distance) % size;
    enqueue(now, sum, peer, tag_ + 1, now.sum_sends[peer]);
  }
}

/// The next part for a rank; what is gathered is compressed once, for this rank itself. Ranks begin
/// with different ones, so that none gets all at once.
bool CompressedAllreduce::compress_next() {
  if (compressing_ == opened_) return false;
  const int rank = transport_.rank(), size = transport_.size();
  if (distance_ == size) {
    distance_ = first_distance();
    ++compressing_;
    return true;
  }
  const int peer = (rank + distance_++) % size;
  const Range part = segment(peer, compressing_);
  if (part.count == 0) return true;
  auto& now = under_way(compressing_);
  const bool own = peer == rank;
  auto& message = own || gathers_ ? now.parts_in[rank] : now.parts_out[peer];
  if (own || !gathers_) {
    message.made = coding_->encode(part, message.payload);
    begun(now, message.made);
  }
  enqueue(now, message, peer, tag_, now.parts_out[peer].request);
  return true;
}

/// One of the sums that have arrived.
bool CompressedAllreduce::store_next() {
  for (std::size_t number = closed_; number < opened_; ++number) {
    auto& now = under_way(number);
    for (int owner = 0; owner < transport_.size(); ++owner) {
      auto& sum = now.sums[owner];
      if (!sum.arrived) continue;
      begun(now, coding_->decode(segment(owner, number), sum.payload, owner));
      sum.arrived = false;
      --now.missing;
      return true;
    }
  }
  return false;
}

/// It is sent once the step that makes it has passed.
void CompressedAllreduce::enqueue(Segment& now, Message& message, int peer, int tag,
                                  std::optional<Request>& request) {
  unsent_.push_back({peer, tag, &now, &message, &request});
  ++now.unsent;
}

/// What has been made by now; what is for this rank itself has arrived.
bool CompressedAllreduce::send_next() {
  bool moved = false;
  for (; !unsent_.empty() && coding_->passed(unsent_.front().message->made); unsent_.pop_front()) {
    const auto& [peer, tag, segment, message, request] = unsent_.front();
    const auto& [memory, length] = message->payload;
    if (peer == transport_.rank())
      message->arrived = true;
    else
      *request = transport_.send(peer, tag, {memory, length, {}});
    --segment->unsent;
    moved = true;
  }
  return moved;
}

/// Ends the first segment under way, if nothing of it is.
bool CompressedAllreduce::close_segment() {
  if (closed_ == compressing_ || closed_ == reducing_) return false;
  auto& now = under_way(closed_);
  if (now.missing || now.unsent) return false;
  for (int peer = 0; peer < transport_.size(); ++peer) {
    if (!ended(now.parts_out[peer].request) || !ended(now.sum_sends[peer])) return false;
  }
  if (!coding_->passed(now.last)) return false;
  ++closed_;
  return true;
}

bool CompressedAllreduce::ended(std::optional<Request>& request) const {
  if (request && transport_.test(*request)) request.reset();
  return !request;
}

void CompressedAllreduce::receive(int peer, int tag, std::size_t count, Message& message) {
  const std::size_t capacity = compressor_->capacity(count);
  message.request = transport_.recv(peer, tag, {message.payload.memory, capacity, {}});
}

}  // namespace ronde
