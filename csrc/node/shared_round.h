// What asynchronous calls do together in the shared memory of one machine: the ranks find the least
// of each of some words, by which they know what runs, and reduce a short vector, if all have one.
// So a short call that is repeated takes one barrier, and not two.
//
// A note holds the words, and then the data.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/pieces.h"
#include "core/reduction.h"
#include "node/shared_collective.h"

namespace ronde {

class SharedRound final : public SharedCollective {
 public:
  /// `words` become the least of all ranks. The first is 1 where this rank has `pieces`, else 0.
  /// They are reduced if the first three words are the same on all ranks, which then have as many.
  SharedRound(Board& board, std::uint64_t fingerprint, std::span<std::uint64_t> words,
              Pieces pieces, const Reduction& reduction);

  /// Whether there is room for so many bytes beside so many words.
  static bool fits(std::size_t words, std::size_t bytes) {
    return words * sizeof(std::uint64_t) + bytes <= Board::kShortBytes;
  }

 private:
  std::size_t plan() override { return 1; }
  void copy_in(std::size_t) override {}
  bool round(std::size_t) override;
  void reduce();

  const std::span<std::uint64_t> words_;
  const Pieces pieces_;
  const Reduction reduction_;
  std::vector<const void*> ins_;
};

}  // namespace ronde
