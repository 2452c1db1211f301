// Phase 0 of every collective: do all ranks make the same call?
//
// A dissemination exchange: in round k a rank sends to rank + 2^k and receives from rank - 2^k, so
// after ceil(log2 P) rounds each knows the minimum and the maximum of all fingerprints, for any
// number of ranks. Where that is a power of two, both are the rank with another bit, the highest
// first: over TCP an answer that takes the same connection back saves packets. It is also a
// barrier. The pattern is the same for every call, and so is the room for a message: it must work
// above all where the calls differ.
//
// Short data may be piggybacked (piggyback.h).
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "collective/piggyback.h"
#include "collective/work.h"
#include "core/bytes.h"
#include "core/extremes.h"
#include "transport/transport.h"

namespace ronde {

class Agreement final : public Work {
 public:
  /// `known`: of this rank, or of those that it speaks for. Where fingerprints are equal, all ranks
  /// must piggyback as many bytes.
  Agreement(Transport& transport, int tag, const Extremes& known,
            std::shared_ptr<Piggyback> piggyback = nullptr);

  Progress progress() override;
  int peer() const override;

  /// Once done: the fingerprints of all ranks.
  const Extremes& known() const { return known_; }
  bool agreed() const { return known_.equal(); }

 private:
  struct Round {
    Request send, recv;
    bool sent = false;
  };

  /// For every message received: what every call needs, and the most that is piggybacked.
  static constexpr std::size_t kRoom = sizeof(Extremes) + Contributions::kMostBytes;

  void start_round();
  void take(int round, std::size_t bytes);
  bool complete() const;  // all rounds received

  std::byte* outgoing(int round) const {
    return messages_.data() + round * (outgoing_room_ + kRoom);
  }
  std::byte* incoming(int round) const { return outgoing(round) + outgoing_room_; }

  Transport& transport_;
  const int tag_;
  const std::shared_ptr<Piggyback> piggyback_;
  Extremes known_;
  const std::size_t outgoing_room_;
  const Bytes messages_;
  std::vector<Round> rounds_;
  int started_ = 0;   // rounds whose messages are under way or complete
  int received_ = 0;  // rounds whose message has come
};

}  // namespace ronde
