#include "engine/statement.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "core/error.h"

namespace ronde {

std::string text_of(std::span<const Stated> statement) {
  std::string text;
  const auto put = [&](const auto& number) {
    text.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  for (const auto& [key, fingerprint, waited] : statement) {
    put(fingerprint);
    put(waited);
    put(key.size());
    text += key;
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
    std::size_t length = 0;
    take(&stated.fingerprint, sizeof stated.fingerprint);
    take(&stated.waited, sizeof stated.waited);
    take(&length, sizeof length);
    if (length > text.size()) throw Error("a statement of pending calls was cut off");
    stated.key.resize(length);
    take(stated.key.data(), length);
    statement.push_back(std::move(stated));
  }
  return statement;
}

std::vector<Match> matches(std::span<const std::vector<Stated>> statements) {
  // The fingerprints that each rank has for a key, in the order of submission.
  std::vector<std::map<std::string_view, std::vector<std::uint64_t>>> pending(statements.size());
  for (std::size_t rank = 0; rank < statements.size(); ++rank)
    for (const auto& stated : statements[rank])
      pending[rank][stated.key].push_back(stated.fingerprint);

  std::vector<Match> found;
  std::map<std::string_view, std::size_t> met;
  for (const auto& stated : statements[0]) {
    const std::size_t number = met[stated.key]++;
    bool everywhere = true, equal = true;
    for (auto& rank : pending) {
      const auto& fingerprints = rank[stated.key];
      everywhere &= number < fingerprints.size();
      equal &= everywhere && fingerprints[number] == stated.fingerprint;
    }
    if (everywhere) found.push_back({stated.key, equal});
  }
  return found;
}

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

}  // namespace ronde
