#include "collective/stall_table.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "core/text.h"

namespace ronde {
namespace {

constexpr std::size_t kColumns = 4;
using Line = std::array<std::string, kColumns>;

struct Group {
  const StallRow* first;
  std::vector<int> ranks;
  double waited;  // the longest
};

/// How many characters of UTF-8.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::vector<Group> grouped(const std::vector<StallRow>& rows) {
  std::vector<Group> groups;
  for (const auto& row : rows) {
    auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
      return group.first->state == row.state && group.first->site == row.site;
    });
    if (found == groups.end()) found = groups.insert(groups.end(), {&row, {}, -1});
    found->ranks.push_back(row.rank);
    found->waited = std::max(found->waited, row.waited);
  }
  return groups;
}

}  // namespace

std::string stall_table(const std::vector<StallRow>& rows) {
  std::vector<Line> lines{{"ranks", "state", "waits", "call site"}};
  for (const auto& [first, ranks, waited] : grouped(rows))
    lines.push_back(
        {ranges(ranks), first->state, waited < 0 ? "" : seconds_text(waited), first->site});
  std::array<std::size_t, kColumns> widths = {};
  for (const auto& line : lines)
    for (std::size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], width(line[i]));
  std::string table;
  for (const auto& line : lines) {
    std::string text = "\n";
    for (std::size_t i = 0; i < kColumns; ++i) {
      text += "  " + line[i];
      text.append(widths[i] - width(line[i]), ' ');
    }
    table += text.substr(0, text.find_last_not_of(' ') + 1);
  }
  return table;
}

}  // namespace ronde
