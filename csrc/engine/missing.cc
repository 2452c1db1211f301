#include "engine/missing.h"

#include <algorithm>
#include <string_view>

#include "collective/stall_table.h"
#include "core/text.h"

namespace ronde {

std::map<std::string, Unmatched> unmatched(std::span<const std::vector<Stated>> statements,
                                           const std::vector<bool>& joined) {
  std::map<std::string, Unmatched> found;
  for (std::size_t rank = 0; rank < statements.size(); ++rank) {
    for (const auto& stated : statements[rank]) {
      auto& calls = found[stated.key].calls;
      calls.resize(statements.size());
      ++calls[rank];
    }
  }
  for (auto& [key, one] : found) {
    one.everywhere = *std::ranges::max_element(one.calls);
    for (std::size_t rank = 0; rank < joined.size(); ++rank)
      if (!joined[rank]) one.everywhere = std::min(one.everywhere, one.calls[rank]);
    for (std::size_t rank = 0; rank < joined.size(); ++rank)
      if (!joined[rank] && !one.has_more(rank)) one.lacking.push_back(rank);
  }
  for (const auto& statement : statements) {
    std::map<std::string_view, std::size_t> met;
    for (const auto& stated : statement) {
      auto& one = found.at(stated.key);
      if (met[stated.key]++ >= one.everywhere) one.waited = std::max(one.waited, stated.waited);
    }
  }
  std::erase_if(found, [](const auto& each) {
    return each.second.everywhere == *std::ranges::max_element(each.second.calls);
  });
  return found;
}

std::string missing_table(const std::string& key, const Unmatched& ranks,
                          std::span<const std::vector<Stated>> statements,
                          const std::vector<int>& members) {
  std::vector<StallRow> rows;
  for (std::size_t rank = 0; rank < statements.size(); ++rank) {
    if (!ranks.has_more(rank)) {
      const bool lacks = std::ranges::count(ranks.lacking, rank) > 0;
      rows.push_back({members[rank], lacks ? "not submitted" : "has joined"});
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
