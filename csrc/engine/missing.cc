#include "engine/missing.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "collective/stall_table.h"
#include "core/text.h"

namespace ronde {
namespace {

constexpr std::size_t kShown = 5;

/// Null if the rank has not stated it.
const Stated* find(std::span<const Stated> statement, std::string_view key) {
  const auto found = std::find_if(statement.begin(), statement.end(),
                                  [&](const auto& each) { return each.key == key; });
  return found == statement.end() ? nullptr : &*found;
}

/// In the order of the first rank that has them.
std::vector<std::string> incomplete(std::span<const std::vector<Stated>> statements) {
  std::vector<std::string> keys;
  for (const auto& statement : statements) {
    for (const auto& stated : statement) {
      const bool everywhere =
          std::all_of(statements.begin(), statements.end(),
                      [&](const auto& each) { return find(each, stated.key) != nullptr; });
      if (!everywhere && std::find(keys.begin(), keys.end(), stated.key) == keys.end())
        keys.push_back(stated.key);
    }
  }
  return keys;
}

}  // namespace

std::string missing_calls(std::span<const std::vector<Stated>> statements,
                          const std::vector<int>& members, const Submitted& own) {
  std::string text;
  std::size_t shown = 0;
  for (const auto& key : incomplete(statements)) {
    if (shown++ == kShown) return text + "\n...";
    const auto mine = own.find(key);
    const bool here = mine && !mine->pending.empty();
    text += '\n';
    text += (here ? mine->pending[0].submission->call().text() : printable(key));
    std::vector<StallRow> rows;
    for (std::size_t rank = 0; rank < statements.size(); ++rank) {
      const auto* theirs = find(statements[rank], key);
      if (theirs)
        rows.push_back({members[rank], "submitted", theirs->waited, printable(theirs->site)});
      else
        rows.push_back({members[rank], "not submitted"});
    }
    text += stall_table(rows);
  }
  return text;
}

}  // namespace ronde
