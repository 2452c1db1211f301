// How the ranks of a set come to share memory.
#pragma once

#include <span>

#include "collective/lane.h"

namespace ronde {

/// `machines`: of each member the number of its machine; empty if there is one. Throws
/// ArgumentError unless all have equally many members.
Neighbours neighbours_of(int rank, int size, std::span<const int> machines);

/// The lane's ranks of this machine share memory from then on, if all ranks of the set can.
Task<> share_memory(Lane& lane, Operation& operation, Neighbours neighbours);

}  // namespace ronde
