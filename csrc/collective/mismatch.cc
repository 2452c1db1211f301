#include "collective/mismatch.h"

#include <algorithm>
#include <string_view>

#include "core/text.h"

namespace ronde {
namespace {

constexpr std::size_t kLong = 400;    // a text that is shown whole
constexpr std::size_t kHead = 80;     // of longer ones: so much of the beginning,
constexpr std::size_t kBefore = 40;   // so much before the first difference,
constexpr std::size_t kAround = 300;  // and so much from there on

struct Group {
  Described described;
  std::vector<int> ranks;
};

std::vector<Group> group(const std::vector<Described>& calls, const std::vector<int>& members) {
  std::vector<Group> groups;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    auto found = std::find_if(groups.begin(), groups.end(),
                              [&](const Group& g) { return g.described == calls[i]; });
    if (found == groups.end()) found = groups.insert(groups.end(), {calls[i], {}});
    found->ranks.push_back(members[i]);
  }
  return groups;
}

/// "ranks 0-3,6"
std::string list_ranks(const std::vector<int>& ranks) {
  return (ranks.size() == 1 ? "rank " : "ranks ") + ranges(ranks);
}

/// How far all texts are the same.
std::size_t common_length(const std::vector<Group>& groups) {
  const std::string_view first = groups[0].described.call;
  std::size_t length = first.size();
  for (const auto& group : groups) {
    const auto& text = group.described.call;
    const auto end = std::mismatch(first.begin(), first.end(), text.begin(), text.end()).first;
    length = std::min(length, static_cast<std::size_t>(end - first.begin()));
  }
  return length;
}

std::string excerpt(std::string_view text, std::size_t difference) {
  if (text.size() <= kLong) return std::string(text);
  std::size_t begin = std::min(difference, text.size());
  begin = begin > kHead + kBefore ? begin - kBefore : 0;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  const std::string head = begin > 0 ? std::string(cut(text, kHead)) + " ... " : "";
  return head + shortened(text.substr(begin), kAround);
}

}  // namespace

std::string mismatch_message(const std::vector<Described>& calls, const std::vector<int>& members,
                             int set) {
  const auto groups = group(calls, members);
  const std::size_t difference = common_length(groups);
  std::string message = "the ranks made different calls";
  if (set != 0) message += " on process set " + std::to_string(set);
  message += groups.size() > 1 ? ":" : ", though their descriptions are equal:";
  for (const auto& [described, ranks] : groups) {
    message += "\n  " + list_ranks(ranks) + ": " + printable(excerpt(described.call, difference));
    if (!described.place.empty()) message += " at " + printable(described.place);
  }
  return message;
}

}  // namespace ronde
