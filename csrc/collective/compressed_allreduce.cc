#include "collective/compressed_allreduce.h"

#include <algorithm>
#include <utility>

#include "collective/settings.h"
#include "core/error.h"
#include "core/round.h"
#include "kernels/kernels.h"

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

CompressedAllreduce::CompressedAllreduce(Transport& transport, Compression compression,
                                         std::span<const float> values, std::span<float> result,
                                         float factor, int tag, std::string what)
    : transport_(transport),
      compression_(std::move(compression)),
      values_(values),
      result_(result),
      factor_(factor),
      tag_(tag),
      what_(std::move(what)),
      own_key_(compression_.key +
               0x9e3779b97f4a7c15 * static_cast<std::uint64_t>(compression_.rank + 1)) {
  cut_segments();
  make_room();
  auto& compressor = compression_.compressor;
  if (auto chosen = compressor->for_vector(values, compression_.residual))
    compressor = std::move(chosen);
  sums_ = compressor->for_sums();
  distance_ = first_distance();
}

void CompressedAllreduce::cut_segments() {
  const auto& compressor = *compression_.compressor;
  std::size_t longest = 0;
  for (int rank = 0; rank < transport_.size(); ++rank)
    longest = std::max(longest, slice(rank).count);
  const std::size_t in_payload = kBetweenMachines * kFewest / compressor.capacity_of_whole(kFewest);
  const std::size_t room =
      kRoom / (kWindow * kPlaces * static_cast<std::size_t>(transport_.size()));
  const std::size_t in_room = room * kFewest / compressor.capacity(kFewest);
  const std::size_t wanted = std::clamp(std::min(in_payload, in_room), kFewest, kMost);
  segment_length_ = rounded(wanted, compressor.grain());
  segment_count_ = (longest + segment_length_ - 1) / segment_length_;
  total_.resize(std::min(segment_length_, longest));
}

void CompressedAllreduce::make_room() {
  window_.resize(std::min(kWindow, segment_count_));
  const auto ranks = static_cast<std::size_t>(transport_.size());
  const std::size_t capacity =
      rounded(compression_.compressor->capacity(total_.size()), kCacheLine);
  payloads_ = Bytes(capacity * kPlaces * ranks * window_.size());
  std::byte* place = payloads_.data();
  for (auto& segment : window_) {
    for (auto* messages : {&segment.parts_out, &segment.parts_in, &segment.sums}) {
      messages->resize(ranks);
      for (auto& message : *messages) message.memory = std::exchange(place, place + capacity);
    }
    segment.sum_sends.resize(ranks);
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
  moved |= close_segment();
  if (closed_ == segment_count_) return Progress::done;
  return moved ? Progress::moved : Progress::idle;
}

/// Slices as even as possible, cut at the grain; or all of the vector for everybody.
CompressedAllreduce::Span CompressedAllreduce::slice(int rank) const {
  if (compression_.gathers) return {0, values_.size()};
  const std::size_t grain = compression_.compressor->grain();
  const std::size_t grains = (values_.size() + grain - 1) / grain;
  const auto cut = [&](int place) {
    return std::min(grains * place / transport_.size() * grain, values_.size());
  };
  return {cut(rank), cut(rank + 1) - cut(rank)};
}

/// Of the slice of a rank; maybe empty, where others' slices are longer.
CompressedAllreduce::Span CompressedAllreduce::segment(int rank, std::size_t number) const {
  const Span all = slice(rank);
  const std::size_t begin = std::min(number * segment_length_, all.count);
  return {all.offset + begin, std::min(segment_length_, all.count - begin)};
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
    const auto count = compression_.gathers ? 0 : segment(peer, number).count;
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
      message.length = *length;
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
  const int rank = transport_.rank(), size = transport_.size();
  const Span own = segment(rank, reducing_);
  if (own.count == 0) {
    ++reducing_;
    return true;
  }
  for (int peer = 0; peer < size; ++peer) {
    if ((peer != rank || sums_) && !now.parts_in[peer].arrived) return false;
  }
  if (compression_.gathers) {
    add_parts(now, own, result_.data() + own.offset);
  } else {
    add_parts(now, own, total_.data());
    send_sum(now, own);
  }
  ++reducing_;
  return true;
}

void CompressedAllreduce::send_sum(Segment& now, const Span& own) {
  const int rank = transport_.rank(), size = transport_.size();
  auto& sum = now.sums[rank];
  sum.length = encode_sum(own, sum.memory);
  sum.arrived = true;
  for (int distance = 1; distance < size; ++distance) {
    const int peer = (rank + distance) % size;
    now.sum_sends[peer] = transport_.send(peer, tag_ + 1, {sum.memory, sum.length, {}});
  }
}

/// In the order of the ranks; times the factor at once, before a compressor can overflow.
void CompressedAllreduce::add_parts(const Segment& now, const Span& own, float* total) const {
  for (int peer = 0; peer < transport_.size(); ++peer) {
    if (peer != transport_.rank() || sums_) {
      decode(now.parts_in[peer], own, total, peer == 0 ? Store::copy : Store::add, peer);
    } else if (peer == 0) {
      std::copy_n(values_.data() + own.offset, own.count, total);
    } else {
      ronde::reduce(ReduceOp::sum, DType::float32, total, total, values_.data() + own.offset,
                    own.count);
    }
  }
  prescale({.dtype = DType::float32, .prescale = factor_}, total, own.count);
}

/// The residual, which is in units of a contribution, is in those of the result meanwhile. Where
/// nothing of it would get into the result, it stays as it is.
std::size_t CompressedAllreduce::encode_sum(const Span& own, std::byte* payload) {
  const float* const total = total_.data();
  if (sums_) return sums_->encode({total, own.count}, {}, {own_key_, own.offset}, payload);
  const auto left = factor_ != 0 ? residual(own) : std::span<float>();
  prescale({.dtype = DType::float32, .prescale = factor_}, left.data(), left.size());
  const std::size_t length = encode(total, own, left, payload);
  postscale({.dtype = DType::float32, .divisor = factor_}, left.data(), left.size());
  return length;
}

/// The next part for a rank; what is gathered is compressed once, for this rank itself. Ranks begin
/// with different ones, so that none gets all at once.
bool CompressedAllreduce::compress_next() {
  if (compressing_ == opened_) return false;
  if (distance_ == transport_.size()) {
    distance_ = first_distance();
    ++compressing_;
    return true;
  }
  const int peer = (transport_.rank() + distance_++) % transport_.size();
  const Span part = segment(peer, compressing_);
  if (part.count == 0) return true;
  auto& now = under_way(compressing_);
  const bool own = peer == transport_.rank();
  auto& message =
      own || compression_.gathers ? now.parts_in[transport_.rank()] : now.parts_out[peer];
  if (own || !compression_.gathers)
    message.length = encode(values_.data() + part.offset, part, residual(part), message.memory);
  if (own)
    message.arrived = true;
  else
    now.parts_out[peer].request = transport_.send(peer, tag_, {message.memory, message.length, {}});
  return true;
}

/// One of the sums that have arrived.
bool CompressedAllreduce::store_next() {
  for (std::size_t number = closed_; number < opened_; ++number) {
    auto& now = under_way(number);
    for (int owner = 0; owner < transport_.size(); ++owner) {
      auto& sum = now.sums[owner];
      if (!sum.arrived) continue;
      const Span part = segment(owner, number);
      decode(sum, part, result_.data() + part.offset, Store::copy, owner);
      sum.arrived = false;
      --now.missing;
      return true;
    }
  }
  return false;
}

/// Ends the first segment under way, if nothing of it is.
bool CompressedAllreduce::close_segment() {
  if (closed_ == compressing_ || closed_ == reducing_) return false;
  auto& now = under_way(closed_);
  if (now.missing) return false;
  for (int peer = 0; peer < transport_.size(); ++peer) {
    if (!ended(now.parts_out[peer].request) || !ended(now.sum_sends[peer])) return false;
  }
  ++closed_;
  return true;
}

bool CompressedAllreduce::ended(std::optional<Request>& request) const {
  if (request && transport_.test(*request)) request.reset();
  return !request;
}

void CompressedAllreduce::receive(int peer, int tag, std::size_t count, Message& message) {
  const std::size_t capacity = compression_.compressor->capacity(count);
  message.request = transport_.recv(peer, tag, {message.memory, capacity, {}});
}

std::span<float> CompressedAllreduce::residual(const Span& span) const {
  const auto& all = compression_.residual;
  return all.empty() ? all : all.subspan(span.offset, span.count);
}

/// `span`: where the values stand in the vector.
std::size_t CompressedAllreduce::encode(const float* values, const Span& span,
                                        std::span<float> left, std::byte* payload) const {
  return compression_.compressor->encode({values, span.count}, left, {own_key_, span.offset},
                                         payload);
}

void CompressedAllreduce::decode(const Message& message, const Span& span, float* out, Store store,
                                 int peer) const {
  try {
    compression_.compressor->decode({message.memory, message.length}, {out, span.count}, store);
  } catch (const ArgumentError& error) {
    throw Error(what_ + ", rank " + std::to_string(transport_.rank()) + " <- " +
                std::to_string(peer) + ": " + error.what());
  }
}

}  // namespace ronde
