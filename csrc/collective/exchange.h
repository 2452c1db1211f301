// What every rank sends to every other outside a collective: before it, or where calls differ.
#pragma once

#include <string>
#include <vector>

#include "collective/lane.h"

namespace ronde {

/// An allgather in `data`, by ring whatever the settings: the ranks may have found that they differ
/// in something.
Task<> exchange_all(Lane& lane, Chunks chunks, Buffer data);

/// The texts of all ranks.
Task<std::vector<std::string>> exchange_texts(Lane& lane, Operation& operation, std::string mine);

/// All ranks say what they call and where, and all throw MismatchError.
Task<> raise_mismatch(Lane& lane, Operation& operation);

}  // namespace ronde
