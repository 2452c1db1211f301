#include "engine/missing.h"

#include <algorithm>
#include <string_view>

#include "collective/stall_table.h"
#include "core/text.h"

namespace ronde {

bool Unmatched::same_ranks_lack(const Unmatched& other) const {
  for (std::size_t rank = 0; rank < calls.size(); ++rank) {
    if (is_lacked_by(rank) != other.is_lacked_by(rank)) return false;
  }
  return true;
}

std::map<std::string, Unmatched> unmatched(std::span<const std::vector<Stated>> statements) {
  std::map<std::string, Unmatched> found;
  for (std::size_t rank = 0; rank < statements.size(); ++rank) {
    for (const auto& stated : statements[rank]) {
      auto& calls = found[stated.key].calls;
      calls.resize(statements.size());
      ++calls[rank];
    }
  }
  for (auto& [key, one] : found)
    one.everywhere = *std::min_element(one.calls.begin(), one.calls.end());
  for (const auto& statement : statements) {
    std::map<std::string_view, std::size_t> met;
    for (const auto& stated : statement) {
      auto& one = found.at(stated.key);
      if (met[stated.key]++ >= one.everywhere) one.waited = std::max(one.waited, stated.waited);
    }
  }
  std::erase_if(found, [](const auto& each) {
    const auto& calls = each.second.calls;
    return each.second.everywhere == *std::max_element(calls.begin(), calls.end());
  });
  return found;
}

std::string missing_table(const std::string& key, const Unmatched& ranks,
                          std::span<const std::vector<Stated>> statements,
                          const std::vector<int>& members) {
  std::vector<StallRow> rows;
  for (std::size_t rank = 0; rank < statements.size(); ++rank) {
    if (ranks.is_lacked_by(rank)) {
      rows.push_back({members[rank], "not submitted"});
      continue;
    }
    std::size_t met = 0;
    const auto& theirs = statements[rank];
    const auto first = std::find_if(theirs.begin(), theirs.end(), [&](const Stated& each) {
      return each.key == key && met++ == ranks.everywhere;
    });
    rows.push_back({members[rank], "submitted", first->waited, printable(first->site)});
  }
  return stall_table(rows);
}

}  // namespace ronde
