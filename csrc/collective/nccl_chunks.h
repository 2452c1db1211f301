// Collectives of NCCL for a vector that is cut into a chunk for each rank, of which some may be
// longer or empty.
#pragma once

#include "core/reduction.h"
#include "cuda/nccl.h"
#include "schedule/schedule.h"

namespace ronde {

/// `out` gets this rank's chunk of the reduction, maybe where it stands in `in`. Of the reduction
/// type and operation count.
void reduce_scatter(cuda::NcclCommunicator& nccl, cuda::StreamHandle stream, const void* in,
                    void* out, const Chunks& chunks, const Reduction& reduction);

/// `out` gets the chunks of all ranks, of which `in` is this rank's, maybe where it is to stand.
void all_gather(cuda::NcclCommunicator& nccl, cuda::StreamHandle stream, const void* in, void* out,
                const Chunks& chunks, DType dtype);

}  // namespace ronde
