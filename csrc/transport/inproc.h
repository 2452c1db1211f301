// Ranks as threads of one process, for tests. Seeded faults stand in for a bad network.
#pragma once

#include <cstdint>
#include <memory>

#include "transport/transport.h"

namespace ronde {

/// What goes wrong, decided for each message by a generator that (seed, sender, message number)
/// keys.
struct Faults {
  std::uint64_t seed = 0;
  double delay = 0;     // probability that a message arrives only after some dozen polls
  double truncate = 0;  // probability that a message loses its last byte
  int dies = -1;        // this rank is dead after `dies_after` sends
  int dies_after = 0;
};

/// `size` ranks in one process. Each thread uses the transports of its own rank.
class InprocWorld {
 public:
  explicit InprocWorld(int size, Faults faults = {});
  ~InprocWorld();

  int size() const;

  /// Messages of transports with different channels never match.
  std::shared_ptr<Transport> transport(int rank, int channel);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace ronde
