// The one table of every stall: who is in a call, who is not, and where they are instead.
#pragma once

#include <string>
#include <vector>

namespace ronde {

/// What is known of a rank. Those with the same state and call site share a line of the table.
struct StallRow {
  int rank;
  std::string state;      // "in the call"
  double waited = -1;     // seconds, if it waits
  std::string site = {};  // "train.py:42", if it is known
};

/// Lines that each begin with an end of line: of ranks in the order in which they first occur.
std::string stall_table(const std::vector<StallRow>& rows);

}  // namespace ronde
