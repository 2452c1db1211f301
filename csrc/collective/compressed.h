// Sums of float32 that are compressed where they cross machines: ranks of one machine reduce
// exactly before, unless the compression is that of each rank's own values.
#pragma once

#include <span>

#include "collective/compressed_allreduce.h"
#include "collective/lane.h"
#include "core/pieces.h"
#include "core/reduction.h"

namespace ronde {

/// `compression` must be the same on all ranks, and the call must describe it. If all ranks share
/// memory, it must be per rank.
Task<> allreduce_compressed(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                            Reduction reduction, Compression compression);

}  // namespace ronde
