// Where the program of the user stands, cheaply enough for every asynchronous call.
#pragma once

#include <string>

namespace ronde {

/// "train.py:42": the innermost line of this thread's Python stack that is neither in Ronde nor in
/// torch, which calls back; empty if there is none. Needs the GIL.
const std::string& call_site();

}  // namespace ronde
