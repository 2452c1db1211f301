// The message of a mismatch.
#pragma once

#include <string>
#include <vector>

namespace ronde {

/// A rank's call in words, and where it stands in the program (may be empty).
struct Described {
  std::string call, place;

  bool operator==(const Described&) const = default;
};

/// Who makes which call. `calls` are those of the ranks `members`, in their order. Of long calls it
/// shows the beginning and where they begin to differ.
std::string mismatch_message(const std::vector<Described>& calls, const std::vector<int>& members,
                             int set);

}  // namespace ronde
