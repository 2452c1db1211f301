#include "collective/agreement.h"

#include <cstring>
#include <utility>

#include "core/error.h"
#include "schedule/schedule.h"

namespace ronde {

Agreement::Agreement(Transport& transport, int tag, const Extremes& known,
                     std::shared_ptr<Piggyback> piggyback)
    : transport_(transport),
      tag_(tag),
      piggyback_(std::move(piggyback)),
      known_(known),
      outgoing_room_(piggyback_ ? kRoom : sizeof(Extremes)),
      messages_((outgoing_room_ + kRoom) * ceil_log2(transport.size())),
      rounds_(ceil_log2(transport.size())) {}

void Agreement::start_round() {
  const int rank = transport_.rank(), size = transport_.size();
  const int to = rank_at(rank, size, -(1 << started_)), from = rank_at(rank, size, 1 << started_);
  std::byte* message = outgoing(started_);
  std::memcpy(message, &known_, sizeof known_);
  const std::size_t bytes = piggyback_ ? piggyback_->put(started_, message + sizeof known_) : 0;
  auto& round = rounds_[started_];
  round.send = transport_.send(to, tag_, {message, sizeof known_ + bytes, {}});
  round.recv = transport_.recv(from, tag_, {incoming(started_), kRoom, {}});
  ++started_;
}

/// Adds what the message of a round has brought to what is known.
void Agreement::take(int round, std::size_t bytes) {
  if (bytes < sizeof(Extremes)) throw Error("phase 0 received an unexpected message");
  Extremes theirs;
  std::memcpy(&theirs, incoming(round), sizeof theirs);
  known_.join(theirs);
  // Ranks with another call send data of another kind, and the result will not be used.
  if (!known_.equal()) return;
  if (bytes != sizeof theirs + (piggyback_ ? piggyback_->expected(round) : 0))
    throw Error("the ranks made the same call, but sent different lengths with it");
  if (piggyback_) piggyback_->take(round, incoming(round) + sizeof theirs);
}

int Agreement::peer() const {
  if (complete()) return -1;
  return transport_.member(rank_at(transport_.rank(), transport_.size(), 1 << received_));
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

}  // namespace ronde
