// What a link costs, measured by all ranks together.
//
// In every exchange each rank sends to the next one of its ring and receives from the one before,
// so that all links are busy both ways, as they are in a collective. Usually all ranks make one
// ring. Where several ranks of each machine drive the network, those of each local rank make one,
// and all rings exchange at once. What is measured is the mean of a batch, since a rank that comes
// late to a single exchange finds its message waiting.
#pragma once

#include "collective/lane.h"
#include "schedule/cost.h"

namespace ronde {

/// After phase 0: what the slowest rank has found.
Task<Link> measured_link(Lane& lane, Operation& operation);

}  // namespace ronde
