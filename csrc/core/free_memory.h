// How much memory this process may take before the system kills a process for it.
#pragma once

#include <cstddef>
#include <string>

namespace ronde {

/// Bytes up to the nearest limit: of the machine, or of a control group (version 1 or 2) that this
/// process is in, at whatever level; a sixteenth of each limit is left for others. What holds files
/// counts as free; swap does not count.
/// `root`: the folder of /proc and /sys, for tests.
std::size_t free_memory(const std::string& root = "");

}  // namespace ronde
