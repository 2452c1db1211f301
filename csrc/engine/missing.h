// What asynchronous calls wait for, in words.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/statement.h"
#include "engine/submitted.h"

namespace ronde {

/// The first calls that some ranks have stated and others have not, each with a table of the ranks,
/// which are `members`. `own`: the calls of this rank.
std::string missing_calls(std::span<const std::vector<Stated>> statements,
                          const std::vector<int>& members, const Submitted& own);

}  // namespace ronde
