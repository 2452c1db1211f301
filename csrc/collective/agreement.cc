#include "collective/agreement.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "schedule/schedule.h"

namespace ronde {

Agreement::Agreement(Transport& transport, int tag, const Extremes& known, ConstBuffer mine)
    : transport_(transport),
      tag_(tag),
      length_(mine.bytes),
      known_(known),
      contributions_(mine.bytes * transport.size()),
      messages_(2 * kRoom * ceil_log2(transport.size())),
      rounds_(ceil_log2(transport.size())) {
  if (length_) std::memcpy(contributions_.data(), mine.data, length_);
}

std::size_t Agreement::carried(int round) const {
  const int reached = 1 << round;
  return length_ * std::min(reached, transport_.size() - reached);
}

/// The rank so many places back. Places are counted round the ring, or where the number of ranks is
/// a power of two in bits that differ, so that two ranks are as far from each other both ways.
int Agreement::peer(int places) const {
  const int rank = transport_.rank(), size = transport_.size();
  if (std::has_single_bit(static_cast<unsigned>(size))) return rank ^ std::abs(places);
  return ((rank - places) % size + size) % size;
}

void Agreement::start_round() {
  const int to = peer(-(1 << started_)), from = peer(1 << started_);
  std::byte* message = outgoing(started_);
  std::memcpy(message, &known_, sizeof known_);
  const std::size_t bytes = carried(started_);
  if (bytes) std::memcpy(message + sizeof known_, contributions_.data(), bytes);
  auto& round = rounds_[started_];
  round.send = transport_.send(to, tag_, {message, sizeof known_ + bytes, {}});
  round.recv = transport_.recv(from, tag_, {incoming(started_), kRoom, {}});
  ++started_;
}

/// Adds what the message of a round has brought to what is known.
void Agreement::take(int round, std::size_t bytes) {
  if (bytes < sizeof(Extremes)) throw Error("a message of another kind came in phase 0");
  Extremes told;
  std::memcpy(&told, incoming(round), sizeof told);
  known_.join(told);
  // A message of another length is one of another call. The fingerprints say so too, and nobody
  // will look at the contributions.
  if (const std::size_t expected = carried(round); bytes == sizeof told + expected && expected) {
    std::memcpy(contributions_.data() + (length_ << round), incoming(round) + sizeof told,
                expected);
  }
}

bool Agreement::complete() const { return received_ == static_cast<int>(rounds_.size()); }

Progress Agreement::progress() {
  bool moved = false;
  while (!complete()) {
    if (started_ == received_) start_round();
    const auto bytes = transport_.test(rounds_[received_].recv);
    if (!bytes) break;
    take(received_++, *bytes);
    moved = true;
  }
  bool all_sent = true;
  for (int i = 0; i < started_; ++i) {
    auto& round = rounds_[i];
    if (!round.sent) round.sent = transport_.test(round.send).has_value();
    all_sent &= round.sent;
  }
  if (complete() && all_sent) return Progress::done;
  return moved ? Progress::moved : Progress::idle;
}

ConstBuffer Agreement::contribution(int rank) const {
  int place = 0;
  while (peer(place) != rank) ++place;
  return {contributions_.data() + place * length_, length_};
}

}  // namespace ronde
