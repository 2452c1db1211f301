// Whether the values of a group are for methods: finite, where one feeds back, and of a size that
// float32 can hold, in which methods compute.
#pragma once

#include "methods/group.h"

namespace ronde {

/// Whether this rank has values that are not.
Task<bool> beyond_limits(Ranks& ranks, const GroupedCall& group);

}  // namespace ronde
