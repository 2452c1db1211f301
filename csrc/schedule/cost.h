// What a schedule costs on a link, counted from its actions.
#pragma once

#include <cstddef>

#include "schedule/schedule.h"

namespace ronde {

/// Measured once, agreed by all ranks. Seconds, and seconds per byte.
struct Link {
  double alpha = 20e-6;    // a message of no bytes, from call to arrival
  double overhead = 5e-6;  // each further message of the same step
  double beta = 1e-9;      // per byte on the wire
  double gamma = 2e-10;    // per byte reduced
};

struct Cost {
  int steps = 0;             // of the collective: others may need one in which this rank is idle
  int messages = 0;          // the larger of sent and received, step by step
  std::size_t sent = 0;      // elements
  std::size_t received = 0;  // elements
  std::size_t reduced = 0;   // elements

  /// Seconds: steps alpha + k overhead + n beta + m gamma, where k counts the messages beyond the
  /// first of each step, and n is what the busier direction carries, step by step (links are full
  /// duplex).
  double seconds = 0;
};

/// The cost for the rank whose schedule this is. With equal chunks the root, or rank 0 where there
/// is none, is always on the critical path, so its cost is the cost of the collective. (A tree with
/// another root than 0 may cost some other rank one `overhead` more, where ranges wrap round.)
Cost cost_of(const Schedule& schedule, std::size_t item_bytes, const Link& link);

}  // namespace ronde
