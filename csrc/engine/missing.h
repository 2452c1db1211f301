// Asynchronous calls that some ranks have pending and others do not.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/statement.h"

namespace ronde {

/// A key with which ranks have different numbers of calls pending.
struct Unmatched {
  std::vector<std::size_t> calls;    // of each rank
  std::size_t everywhere;            // the least of these, but for ranks that have joined
  std::vector<std::size_t> lacking;  // ranks that should have more
  double waited;                     // the longest of what they lack, on any rank

  bool has_more(std::size_t rank) const { return calls[rank] > everywhere; }
};

/// `joined`: of each rank, whether it has.
std::map<std::string, Unmatched> unmatched(std::span<const std::vector<Stated>> statements,
                                           const std::vector<bool>& joined);

/// Which ranks, which are `members`, have the first of these calls, and since when.
std::string missing_table(const std::string& key, const Unmatched& ranks,
                          std::span<const std::vector<Stated>> statements,
                          const std::vector<int>& members);

}  // namespace ronde
