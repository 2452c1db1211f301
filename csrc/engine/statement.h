// What the ranks tell each other of the asynchronous calls that they have pending, and what
// follows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ronde {

/// A pending call of a rank.
struct Stated {
  std::string key;
  std::uint64_t fingerprint;
  double waited = 0;  // seconds
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

/// A key with which ranks have different numbers of calls pending.
struct Unmatched {
  std::vector<std::size_t> calls;  // of each rank
  std::size_t everywhere;          // the least of these
  double waited;                   // the longest of those that some ranks lack, on any rank

  bool is_lacked_by(std::size_t rank) const { return calls[rank] == everywhere; }
  bool same_ranks_lack(const Unmatched& other) const;
};

std::map<std::string, Unmatched> unmatched(std::span<const std::vector<Stated>> statements);

}  // namespace ronde
