// Sums of float32 that are compressed where they cross machines: ranks of one machine reduce
// exactly before, unless the compression is that of each rank's own values.
#pragma once

#include <optional>
#include <span>

#include "collective/compressed_allreduce.h"
#include "collective/lane.h"
#include "core/pieces.h"
#include "core/reduction.h"

namespace ronde {

/// Whether arrays of a GPU are compressed there, whatever other ranks have: then `pieces` below are
/// all on one GPU, and so is the residual. Else all must be on the host. The same on all ranks that
/// have GPUs.
bool compresses_on_gpu(const Lane& lane, const Compressor& compressor, bool per_rank);

/// The same where the ranks of this machine add up their arrays before: they agree on it. `gpu`:
/// which holds all arrays of this rank, if one does. Where that is so on all ranks of the machine,
/// and NCCL connects these GPUs, they do it there. Comes after phase 0, on all ranks of the machine
/// or none; other machines need not know.
Task<bool> sums_on_gpus(Lane& lane, Operation& operation, const Compressor& compressor,
                        std::optional<Device> gpu);

/// `compression` must be the same on all ranks, and the call must describe it. If all ranks share
/// memory, it must be per rank.
Task<> allreduce_compressed(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                            Reduction reduction, Compression compression);

}  // namespace ronde
