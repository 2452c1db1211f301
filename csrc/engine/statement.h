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

/// A call that all ranks have pending, but for those that have joined.
struct Match {
  std::string key;
  bool equal = true;         // whether all describe it alike
  int first = -1;            // rank that has it
  std::vector<int> lacking;  // ranks, which have joined
};

/// In the order of the first rank that has not joined; or of all, if all have. The n-th call with a
/// key is the n-th with it everywhere. `joined`: of each rank, whether it has.
std::vector<Match> matches(std::span<const std::vector<Stated>> statements,
                           const std::vector<bool>& joined);

}  // namespace ronde
