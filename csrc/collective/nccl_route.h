// Collectives of arrays that all ranks have on GPUs, over NCCL.
//
// Phase 0 is that of every call, on the host. Then a rank enqueues on the lane's stream what is to
// be done, copies and kernels of Ronde, and NCCL's, after what the caller's streams do before. The
// call ends when all is enqueued, and the caller's stream waits for the rest.
//
// Each returns whether it was done. If not, nothing was: all ranks do it another way. That is so
// where the ranks are not connected by NCCL, some have joined, an algorithm is named, or the
// reduction is none that NCCL does as Ronde does:
//
//   bool, int16, uint16    which NCCL lacks
//   min, max of floats     NCCL's pass over NaN
//   Adasum
//   deterministic mode     NCCL's order of additions depends on where an element stands
#pragma once

#include <span>
#include <string_view>

#include "collective/lane.h"
#include "core/buffer.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "schedule/schedule.h"

namespace ronde {

Task<bool> allreduce_over_nccl(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                               Reduction reduction, std::string_view algorithm);
Task<bool> reduce_scatter_over_nccl(Lane& lane, Operation& operation, ConstBuffer input,
                                    Buffer output, const Chunks& chunks, Reduction reduction,
                                    std::string_view algorithm);
Task<bool> reduce_over_nccl(Lane& lane, Operation& operation, Piece piece, Reduction reduction,
                            int root, std::string_view algorithm);
Task<bool> broadcast_over_nccl(Lane& lane, Operation& operation, Buffer data, int root,
                               std::string_view algorithm);

}  // namespace ronde
