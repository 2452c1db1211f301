#include "collective/compressed.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/round.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

// Segments under way at once.
constexpr std::size_t kWindow = 4;
// The payload of a segment, about: enough for a link to be busy while the next one is compressed.
constexpr std::size_t kPayloadBytes = 128 << 10;
// The values of a segment: enough for a message to be worth its latency, and few enough for the sum
// of one to stay in cache.
constexpr std::size_t kFewest = 16 << 10, kMost = 128 << 10;

}  // namespace

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
  auto& fitting = compression_.compressor;
  const std::size_t usual = fitting->capacity_of_whole(kFewest);
  if (auto fitted = fitting->fitted(values, compression_.residual, compression_.key))
    fitting = std::move(fitted);
  const auto& compressor = *fitting;
  sums_ = compressor.for_sums();
  distance_ = first_distance();
  std::size_t longest = 0;
  for (int rank = 0; rank < transport.size(); ++rank)
    longest = std::max(longest, slice(rank).count);
  const std::size_t in_payload = kPayloadBytes * kFewest / usual;
  segment_length_ = rounded(std::clamp(in_payload, kFewest, kMost), compressor.grain());
  segment_count_ = (longest + segment_length_ - 1) / segment_length_;
  window_.resize(std::min(kWindow, segment_count_));
  for (auto& segment : window_) {
    const auto ranks = static_cast<std::size_t>(transport.size());
    segment.parts_out.resize(ranks);
    segment.parts_in.resize(ranks);
    segment.sums_in.resize(ranks);
    segment.sum_sends.resize(ranks);
  }
  total_.resize(std::min(segment_length_, longest));
}

Progress CompressedAllreduce::progress() {
  bool moved = open_segment();
  for (std::size_t number = closed_; number < opened_; ++number) {
    moved |= hear(number);
    moved |= store_sums(number);
  }
  moved |= reduce_next();
  moved |= compress_next();
  moved |= close_segment();
  if (closed_ == segment_count_) return Progress::done;
  return moved ? Progress::moved : Progress::idle;
}

/// Slices as even as possible, cut at the grain.
CompressedAllreduce::Span CompressedAllreduce::slice(int rank) const {
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
    now.parts_in[peer].arrived = now.sums_in[peer].arrived = false;
    if (peer == transport_.rank()) continue;
    if (own) receive(peer, tag_, own, now.parts_in[peer]);
    if (const auto count = segment(peer, number).count) {
      receive(peer, tag_ + 1, count, now.sums_in[peer]);
      ++now.missing;
    }
  }
  return true;
}

/// The next part for a rank. Ranks begin with different ones, so that none gets all at once.
bool CompressedAllreduce::compress_next() {
  if (compressing_ == opened_) return false;
  if (distance_ < transport_.size()) {
    const int peer = (transport_.rank() + distance_++) % transport_.size();
    const Span part = segment(peer, compressing_);
    auto& now = under_way(compressing_);
    const bool own = peer == transport_.rank();
    auto& message = own ? now.parts_in[peer] : now.parts_out[peer];
    if (part.count) {
      message.length = encode(values_.data() + part.offset, part, room(message, part.count));
      if (own)
        message.arrived = true;
      else
        send(peer, tag_, {message.memory.data(), message.length, {}}, message.request);
    }
    return true;
  }
  distance_ = first_distance();
  ++compressing_;
  return true;
}

/// What has arrived.
bool CompressedAllreduce::hear(std::size_t number) {
  bool moved = false;
  auto& now = under_way(number);
  for (auto* messages : {&now.parts_in, &now.sums_in}) {
    for (auto& message : *messages) {
      if (!message.request) continue;
      if (const auto length = transport_.test(*message.request)) {
        message.request.reset();
        message.length = *length;
        message.arrived = moved = true;
      }
    }
  }
  return moved;
}

/// Adds what all ranks have sent of the next segment of our slice, and sends the sum. Segments keep
/// their order, which is that of the messages.
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
  float* total = total_.data();
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank || sums_) {
      decode(now.parts_in[peer], own, total, peer == 0 ? Store::copy : Store::add, peer);
    } else if (peer == 0) {
      std::copy_n(values_.data() + own.offset, own.count, total);
    } else {
      ronde::reduce(ReduceOp::sum, DType::float32, total, total, values_.data() + own.offset,
                    own.count);
    }
  }
  prescale({.dtype = DType::float32, .prescale = factor_}, total, own.count);
  std::byte* const payload = room(now.sum, own.count);
  now.sum.length = sums_ ? sums_->encode({total, own.count}, {}, {own_key_, own.offset}, payload)
                         : encode(total, own, payload);
  for (int distance = 1; distance < size; ++distance) {
    const int peer = (rank + distance) % size;
    send(peer, tag_ + 1, {now.sum.memory.data(), now.sum.length, {}}, now.sum_sends[peer]);
  }
  decode(now.sum, own, result_.data() + own.offset, Store::copy, rank);
  ++reducing_;
  return true;
}

bool CompressedAllreduce::store_sums(std::size_t number) {
  bool moved = false;
  auto& now = under_way(number);
  for (int owner = 0; owner < transport_.size(); ++owner) {
    auto& message = now.sums_in[owner];
    if (!message.arrived) continue;
    const Span part = segment(owner, number);
    decode(message, part, result_.data() + part.offset, Store::copy, owner);
    message.arrived = false;
    --now.missing;
    moved = true;
  }
  return moved;
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

/// Memory for a payload of so many values.
std::byte* CompressedAllreduce::room(Message& message, std::size_t count) const {
  const std::size_t capacity = compression_.compressor->capacity(count);
  if (message.memory.size() < capacity) message.memory = Bytes(capacity);
  return message.memory.data();
}

bool CompressedAllreduce::ended(std::optional<Request>& request) const {
  if (request && transport_.test(*request)) request.reset();
  return !request;
}

void CompressedAllreduce::send(int peer, int tag, ConstBuffer payload,
                               std::optional<Request>& request) {
  request = transport_.send(peer, tag, payload);
}

void CompressedAllreduce::receive(int peer, int tag, std::size_t count, Message& message) {
  room(message, count);
  message.request = transport_.recv(peer, tag, message.memory.buffer());
}

/// `span`: where the values stand in the vector.
std::size_t CompressedAllreduce::encode(const float* values, const Span& span, std::byte* payload) {
  const auto residual = compression_.residual.empty()
                            ? std::span<float>()
                            : compression_.residual.subspan(span.offset, span.count);
  return compression_.compressor->encode({values, span.count}, residual, {own_key_, span.offset},
                                         payload);
}

void CompressedAllreduce::decode(const Message& message, const Span& span, float* out, Store store,
                                 int peer) const {
  try {
    compression_.compressor->decode({message.memory.data(), message.length}, {out, span.count},
                                    store);
  } catch (const ArgumentError& error) {
    throw Error(what_ + ", rank " + std::to_string(transport_.rank()) + " <- " +
                std::to_string(peer) + ": " + error.what());
  }
}

}  // namespace ronde
