// Phase 0 of every collective: do all ranks make the same call?
//
// A dissemination exchange: in round k a rank sends to rank + 2^k and hears from rank - 2^k, so
// after ceil(log2 P) rounds each knows the minimum and the maximum of all fingerprints, for any
// number of ranks. Where that is a power of two, both are the rank with the other k-th bit: over
// TCP an answer that takes the same connection back saves packets. It is also a barrier. The
// pattern is the same for every call, and so is the room for a message, so that it works just when
// the calls differ.
//
// A small contribution rides along: J. Bruck et al., "Efficient algorithms for all-to-all
// communications in multiport message-passing systems", IEEE Trans. Parallel Distrib. Syst. 8
// (1997). The message of round k carries the contributions of the min(2^k, P - 2^k) ranks up to the
// sender, so that in the end every rank has that of every other, (P-1) times its length received in
// all.
#pragma once

#include <cstddef>
#include <vector>

#include "collective/work.h"
#include "core/buffer.h"
#include "core/bytes.h"
#include "core/extremes.h"
#include "transport/transport.h"

namespace ronde {

class Agreement final : public Work {
 public:
  /// Contributions of that length can ride along, on all ranks or on none.
  static constexpr bool carries(std::size_t bytes, int size) {
    return bytes > 0 && bytes * static_cast<std::size_t>(size) <= kCarried;
  }

  /// `known`: of this rank, or of those that it speaks for. The fingerprints stand for the length
  /// of `mine` too. `mine` is copied.
  Agreement(Transport& transport, int tag, const Extremes& known, ConstBuffer mine = {});

  Progress progress() override;

  /// Once done: whether all fingerprints were equal.
  bool agreed() const { return known_.equal(); }

  int size() const { return transport_.size(); }

  /// Once agreed: what that rank has brought.
  ConstBuffer contribution(int rank) const;

 private:
  struct Round {
    Request send, recv;
    bool sent = false;
  };

  /// Of all ranks together. Every MPI sends messages of half of it at once, without asking.
  static constexpr std::size_t kCarried = 4096;
  /// What phase 0 always needs, and the half of the contributions that the last round brings.
  static constexpr std::size_t kRoom = sizeof(Extremes) + kCarried / 2;

  int peer(int places) const;
  void start_round();
  void take(int round, std::size_t bytes);
  bool complete() const;  // all rounds received

  std::byte* outgoing(int round) const { return messages_.data() + 2 * round * kRoom; }
  std::byte* incoming(int round) const { return outgoing(round) + kRoom; }
  /// Bytes of contributions in the message of a round.
  std::size_t carried(int round) const;

  Transport& transport_;
  const int tag_;
  const std::size_t length_;  // of a contribution
  Extremes known_;
  std::vector<std::byte>
      contributions_;  // of this rank, the one before it, the one before that ...
  const Bytes messages_;
  std::vector<Round> rounds_;
  int started_ = 0;   // rounds whose messages are under way or complete
  int received_ = 0;  // rounds whose message has come
};

}  // namespace ronde
