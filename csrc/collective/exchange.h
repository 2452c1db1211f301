// What every rank sends to every other outside a collective: before it, or where calls differ.
#pragma once

#include <string>
#include <vector>

#include "collective/lane.h"
#include "collective/outline.h"
#include "core/error.h"

namespace ronde {

/// An allgather in `data`, by ring whatever the settings: the ranks may have found that they differ
/// in something.
Task<> exchange_all(Lane& lane, Chunks chunks, Buffer data);

/// The texts of all ranks.
Task<std::vector<std::string>> exchange_texts(Lane& lane, Operation& operation, std::string mine);
/// The same among the ranks of this machine, which share memory.
Task<std::vector<std::string>> exchange_texts_here(Lane& lane, Operation& operation,
                                                   std::string mine);

/// Some ranks have joined, and the others make one and the same call.
struct SomeJoined : MismatchError {
  explicit SomeJoined(std::vector<std::string> all_calls)
      : MismatchError("some ranks have joined"), calls(std::move(all_calls)) {}

  std::vector<std::string> calls;  // of all ranks, in words
  std::vector<int> joined;         // ranks of the set
  int first = -1;                  // that has not
  int divisor = 0;                 // see Joined

  Joined counts() const { return {static_cast<int>(joined.size()), divisor}; }
};

/// Why nothing can be called where they differ in that.
inline const std::string kSameAverage = "the ranks that join must give the same average";

/// All ranks say what they call. All throw SomeJoined, or MismatchError, which says where they call
/// it.
Task<> raise_mismatch(Lane& lane, Operation& operation);

/// After SomeJoined: the call of those that have not, which they describe as `mine`. All throw
/// MismatchError where it cannot be done without the others.
Task<Description> described(Lane& lane, Operation& operation, SomeJoined some, Description mine);

/// The rank that has joined last, where all have, after taking part in so many `rounds`. Of several
/// it is the highest.
Task<int> last_to_join(Lane& lane, Operation& operation, std::uint64_t rounds);

}  // namespace ronde
