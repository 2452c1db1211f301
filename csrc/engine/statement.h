// What the ranks tell each other of the asynchronous calls that they have pending, and what
// follows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ronde {

/// A pending call of a rank.
struct Stated {
  std::string key;
  std::uint64_t fingerprint;
  double waited = 0;   // seconds
  std::string site{};  // where it was submitted, once it has waited for long
};

std::string text_of(std::span<const Stated> statement);
std::vector<Stated> statement_of(std::string_view text);

/// A call that all ranks have pending.
struct Match {
  std::string key;
  bool equal;  // whether all describe it alike
};

/// In the order of the first rank. The n-th call with a key is the n-th with it everywhere.
std::vector<Match> matches(std::span<const std::vector<Stated>> statements);

}  // namespace ronde
