#include "engine/statement.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "core/error.h"

namespace ronde {

std::string text_of(std::span<const Stated> statement) {
  std::string text;
  const auto put = [&](const auto& number) {
    text.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  for (const auto& [key, fingerprint, waited, site] : statement) {
    put(fingerprint);
    put(waited);
    put(key.size());
    put(site.size());
    text += key;
    text += site;
  }
  return text;
}

std::vector<Stated> statement_of(std::string_view text) {
  std::vector<Stated> statement;
  const auto take = [&](void* to, std::size_t bytes) {
    if (text.size() < bytes) throw Error("a statement of pending calls was cut off");
    std::memcpy(to, text.data(), bytes);
    text.remove_prefix(bytes);
  };
  while (!text.empty()) {
    Stated stated;
    std::size_t key = 0, site = 0;
    take(&stated.fingerprint, sizeof stated.fingerprint);
    take(&stated.waited, sizeof stated.waited);
    take(&key, sizeof key);
    take(&site, sizeof site);
    if (key > text.size() || site > text.size() - key)
      throw Error("a statement of pending calls was cut off");
    stated.key.resize(key);
    take(stated.key.data(), key);
    stated.site.resize(site);
    take(stated.site.data(), site);
    statement.push_back(std::move(stated));
  }
  return statement;
}

std::vector<Match> matches(std::span<const std::vector<Stated>> statements,
                           const std::vector<bool>& joined) {
  // The fingerprints that each rank has for a key, in the order of submission.
  std::vector<std::map<std::string_view, std::vector<std::uint64_t>>> pending(statements.size());
  for (std::size_t rank = 0; rank < statements.size(); ++rank)
    for (const auto& stated : statements[rank])
      pending[rank][stated.key].push_back(stated.fingerprint);

  const auto match_of = [&](const std::string& key, std::size_t number) -> std::optional<Match> {
    Match match{.key = key, .lacking = {}};
    std::uint64_t expected = 0;
    for (std::size_t rank = 0; rank < pending.size(); ++rank) {
      const auto& fingerprints = pending[rank][key];
      if (number >= fingerprints.size()) {
        if (!joined[rank]) return {};
        match.lacking.push_back(static_cast<int>(rank));
        continue;
      }
      if (match.first < 0) {
        match.first = static_cast<int>(rank);
        expected = fingerprints[number];
      }
      match.equal &= fingerprints[number] == expected;
    }
    return match;
  };

  const auto first = std::ranges::find(joined, false);
  if (first != joined.end())
    statements = statements.subspan(static_cast<std::size_t>(first - joined.begin()), 1);
  std::vector<Match> found;
  std::map<std::string_view, std::size_t> looked;
  for (const auto& statement : statements) {
    std::map<std::string_view, std::size_t> met;
    for (const auto& stated : statement) {
      const std::size_t number = met[stated.key]++;
      auto& next = looked[stated.key];
      if (number < next) continue;
      ++next;
      if (auto match = match_of(stated.key, number)) found.push_back(std::move(*match));
    }
  }
  return found;
}

}  // namespace ronde
