#include "collective/agreement.h"

#include <algorithm>

#include "core/error.h"

namespace ronde {

Agreement::Agreement(Transport& transport, int tag, std::uint64_t fingerprint)
    : transport_(transport), tag_(tag), known_{fingerprint, fingerprint} {}

void Agreement::start_round() {
  const int size = transport_.size();
  const int distance = static_cast<int>((std::int64_t{1} << started_) % size);
  const int to = (transport_.rank() + distance) % size;
  const int from = (transport_.rank() - distance + size) % size;
  auto& round = rounds_[started_++];
  round.outgoing = known_;
  const auto bytes = [](Extremes& extremes) {
    return Buffer{reinterpret_cast<std::byte*>(&extremes), sizeof extremes, {}};
  };
  round.recv = transport_.recv(from, tag_, bytes(round.incoming));
  round.send = transport_.send(to, tag_, bytes(round.outgoing));
}

bool Agreement::complete() const {
  return started_ == received_ && (std::int64_t{1} << started_) >= transport_.size();
}

Progress Agreement::progress() {
  bool moved = false;
  while (true) {
    if (started_ == received_) {
      if (complete()) break;
      start_round();
    }
    auto& round = rounds_[received_];
    const auto bytes = transport_.test(round.recv);
    if (!bytes) break;
    if (*bytes != sizeof(Extremes)) throw Error("a message of another kind came in phase 0");
    known_.least = std::min(known_.least, round.incoming.least);
    known_.greatest = std::max(known_.greatest, round.incoming.greatest);
    ++received_;
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
