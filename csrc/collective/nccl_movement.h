// Collectives over NCCL of which only the receivers' counts say how much comes: allgather, gather,
// alltoall. (nccl_route.h has the others.)
//
// The rows of all ranks are known by then: a collective on the host has moved the same numbers of
// rows, without their bytes, and so was phase 0. Then the bytes go from GPU to GPU:
//
//   allgather   NCCL's where all ranks have equally many rows, else a broadcast from each rank
//   gather      a send from each rank, which the root receives
//   alltoall    a send to each rank and a receive from each
//
// Several of them are one operation of NCCL, as none of them could end without the others. What
// has no bytes is not sent. A rank sends to itself as to others.
//
// Each returns whether it was done, as those of nccl_route.h do. The result is memory of Ronde's.
#pragma once

#include <string_view>

#include "collective/route.h"

namespace ronde {

/// Whether it may be done, as far as all ranks know before they agree.
bool may_move_over_nccl(Lane& lane, const Operation& operation, Collective collective,
                        std::string_view algorithm);

// `all` has the rows, and gets the data.

Task<bool> allgather_over_nccl(Lane& lane, Operation& operation, Contribution mine, Gathered& all);
Task<bool> gather_over_nccl(Lane& lane, Operation& operation, Contribution mine, int root,
                            Gathered& all);
Task<bool> alltoall_over_nccl(Lane& lane, Operation& operation, Rows mine, Gathered& all);

}  // namespace ronde
