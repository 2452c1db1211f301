// The routes of a lane, and which of them a collective takes.
//
//   all ranks share memory                     shared_memory.h
//   those of each machine do                   hierarchical.h
//   none do, or the user names an algorithm    network.h
#pragma once

#include <string_view>

#include "collective/hierarchical.h"
#include "collective/lane.h"
#include "collective/network.h"
#include "collective/select.h"
#include "collective/shared_memory.h"

namespace ronde {

class Routes {
 public:
  explicit Routes(Lane& lane)
      : lane_(lane), network_(lane), shared_memory_(lane), hierarchical_(lane) {}
  /// All collectives take this one.
  Routes(Lane& lane, Route& only) : Routes(lane) { only_ = &only; }

  Lane& lane() const { return lane_; }

  /// Throws ArgumentError where the algorithm cannot run.
  Route& choose(Collective collective, std::string_view algorithm) {
    if (only_) return *only_;
    if (lane_.board() && lane_.plans().chosen_freely(collective, algorithm)) {
      if (lane_.across()) return hierarchical_;
      return shared_memory_;
    }
    require_algorithm(collective, lane_.size(), lane_.settings(), algorithm);
    return network_;
  }

 private:
  Lane& lane_;
  Network network_;
  SharedMemory shared_memory_;
  Hierarchical hierarchical_;
  Route* only_ = nullptr;
};

}  // namespace ronde
