// The table of algorithms. To add one, write it in a file of its own and add its line here.
#pragma once

#include "schedule/schedule.h"

// clang-format off
//   name                   collective      position     any
//                                          independent  size
#define RONDE_ALGORITHMS(X)                               \
  X(ring,                   allreduce,      false,       true)  \
  X(halving_doubling,       allreduce,      true,        true)  \
  X(recursive_doubling,     allreduce,      true,        true)  \
  X(circulant,              allreduce,      false,       true)  \
  X(direct,                 allreduce,      true,        true)  \
  X(one_shot,               allreduce,      true,        true)  \
  X(ring,                   reduce_scatter, false,       true)  \
  X(halving_doubling,       reduce_scatter, true,        false) \
  X(circulant,              reduce_scatter, false,       true)  \
  X(direct,                 reduce_scatter, true,        true)  \
  X(ring,                   allgather,      true,        true)  \
  X(halving_doubling,       allgather,      true,        false) \
  X(circulant,              allgather,      true,        true)  \
  X(direct,                 allgather,      true,        true)  \
  X(tree,                   broadcast,      true,        true)  \
  X(scatter_allgather,      broadcast,      true,        true)  \
  X(tree,                   reduce,         true,        true)  \
  X(reduce_scatter_gather,  reduce,         false,       true)  \
  X(tree,                   gather,         true,        true)  \
  X(direct,                 gather,         true,        true)  \
  X(tree,                   scatter,        true,        true)  \
  X(direct,                 scatter,        true,        true)  \
  X(direct,                 alltoall,       true,        true)
// clang-format on

namespace ronde {

#define RONDE_DECLARE(name, collective, position_independent, any_size) \
  namespace name {                                                      \
  Schedule collective(const Layout& layout);                            \
  }
RONDE_ALGORITHMS(RONDE_DECLARE)
#undef RONDE_DECLARE

}  // namespace ronde
