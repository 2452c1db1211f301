// How a blocking call waits: it moves its task to the end.
#pragma once

#include "collective/task.h"
#include "collective/turns.h"
#include "collective/watch.h"

namespace ronde {

/// What ends the wait early is thrown in the task.
void drive(RootTask& task, const Operation& operation, Lane& lane, Turns& turns, Watch& watch);

}  // namespace ronde
