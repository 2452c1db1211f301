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

}  // namespace ronde
