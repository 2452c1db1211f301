// Phase 0 of every collective: do all ranks make the same call?
//
// A dissemination exchange: in round k a rank sends to rank + 2^k and hears from rank - 2^k, so
// after ceil(log2 P) rounds of 16 bytes each knows the minimum and the maximum of all fingerprints,
// for any number of ranks. The pattern and the size of its messages are the same for every call, so
// that it works just when the calls differ. It is also a barrier.
#pragma once

#include <array>
#include <cstdint>

#include "collective/work.h"
#include "transport/transport.h"

namespace ronde {

class Agreement final : public Work {
 public:
  Agreement(Transport& transport, int tag, std::uint64_t fingerprint);

  Progress progress() override;

  /// Once done: whether all fingerprints were equal.
  bool agreed() const { return known_.least == known_.greatest; }

 private:
  struct Extremes {
    std::uint64_t least, greatest;
  };
  struct Round {
    Extremes outgoing, incoming;
    Request send, recv;
    bool sent = false;
  };

  void start_round();
  bool complete() const;  // all rounds received

  static constexpr int kMaxRounds = 31;

  Transport& transport_;
  const int tag_;
  Extremes known_;
  std::array<Round, kMaxRounds> rounds_;
  int started_ = 0;   // rounds whose messages are under way or complete
  int received_ = 0;  // rounds whose message has come
};

}  // namespace ronde
